// What the adapters view says, in English. text/adapters-zh.js has the same keys.

export default {};
