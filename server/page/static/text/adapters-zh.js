// What the adapters view says, in Chinese. text/adapters-en.js has the same keys.

export default {};
