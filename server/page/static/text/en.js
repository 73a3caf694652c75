// What the shell and the chat say, in English. text/zh.js has the same keys.

export default {
  "shell.skip": "Skip to the content",
  "shell.views": "Views",
  "shell.chat": "Chat",
  "shell.adapters": "Adapters",
  "shell.language": "中文",
  "shell.languageMark": "中",
  "shell.theme": "Theme: {theme}",
  "shell.theme.auto": "as the system",
  "shell.theme.light": "light",
  "shell.theme.dark": "dark",
  "shell.close": "Close",
  "shell.copy": "Copy",
  "shell.copied": "Copied",
  "shell.copyFailed": "The browser does not let this page copy",

  "key.button": "API key",
  "key.title": "API key",
  "key.needed": "This server asks for a key.",
  "key.wrong": "The server does not know this key.",
  "key.admin": "This needs an admin key.",
  "key.field": "Key",
  "key.note": "It stays in this tab until you close it, and is sent to this server only.",
  "key.use": "Use this key",
  "key.forget": "Forget",
  "key.forgotten": "The key is forgotten",

  "error.unreachable": "The server cannot be reached.",
};
