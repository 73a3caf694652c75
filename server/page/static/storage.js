// What the browser keeps for the page. Where it may keep nothing, the page works, and forgets.

/** Texts by name in "local" or "session" storage, and in memory where that is refused. */
export function createStorage(kind) {
  const memory = new Map();

  return {
    get(name) {
      try {
        return window[`${kind}Storage`].getItem(name) ?? memory.get(name) ?? null;
      } catch {
        return memory.get(name) ?? null;
      }
    },
    set(name, text) {
      try {
        window[`${kind}Storage`].setItem(name, text);
        memory.delete(name);
      } catch {
        this.remove(name); // an older text must not come back
        memory.set(name, text);
      }
    },
    remove(name) {
      memory.delete(name);
      try {
        window[`${kind}Storage`].removeItem(name);
      } catch {
        // nothing was kept
      }
    },
  };
}
