// Keeps what grows at its end in sight, unless the reader has gone elsewhere.

const NEAR_END = 60;

/** Follow the end of `content` inside `scroller`. Gives back what goes there, wherever the reader is. */
export function followEnd(scroller, content) {
  let isFollowing = true;
  scroller.addEventListener("scroll", () => {
    isFollowing = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
  });
  const observer = new ResizeObserver(() => isFollowing && goToEnd());
  observer.observe(content);
  observer.observe(scroller);

  function goToEnd() {
    isFollowing = true;
    scroller.scrollTop = scroller.scrollHeight;
  }

  return goToEnd;
}
