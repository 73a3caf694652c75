// The adapters view.

/**
 * Fill the section, when it is shown for the first time. `app`: see app.js. Gives back what to call when the view is
 * shown (again) and hidden, both optional.
 */
export function mount() {
  return {};
}
