"""The page itself: what it asks for before it is painted, and what it looks like."""

from tests.browser.tab import Tab


def test_the_page_is_painted_without_asking_the_api(tab: Tab) -> None:
    """Everything but the page's own files is held back for ever."""
    held: list[str] = []
    tab.page.route("**/v1/**", lambda route: held.append(route.request.url))
    page = tab.go()
    page.get_by_role("link", name="Adapters").wait_for()
    paint = "performance.getEntriesByName('first-contentful-paint').length"
    page.wait_for_function(paint)
    others = {request for request in tab.requests if request not in held}
    assert all(request == f"{tab.url}/" or "/page/" in request for request in others)
