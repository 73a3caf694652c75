// The chat view.

export function mount() {
  return {};
}
