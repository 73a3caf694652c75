// What the shell and the chat say, in Chinese. text/en.js has the same keys.

export default {
  "shell.skip": "跳到内容",
  "shell.views": "视图",
  "shell.chat": "对话",
  "shell.adapters": "适配器",
  "shell.language": "English",
  "shell.languageMark": "En",
  "shell.theme": "主题：{theme}",
  "shell.theme.auto": "跟随系统",
  "shell.theme.light": "浅色",
  "shell.theme.dark": "深色",
  "shell.close": "关闭",
  "shell.copy": "复制",
  "shell.copied": "已复制",
  "shell.copyFailed": "浏览器不允许本页复制",

  "key.button": "API 密钥",
  "key.title": "API 密钥",
  "key.needed": "此服务器需要密钥。",
  "key.wrong": "服务器不认识这个密钥。",
  "key.admin": "此操作需要管理员密钥。",
  "key.field": "密钥",
  "key.note": "密钥只保存在此标签页中，关闭即清除，并且只发送给此服务器。",
  "key.use": "使用此密钥",
  "key.forget": "清除",
  "key.forgotten": "密钥已清除",

  "error.unreachable": "无法连接服务器。",
};
