"""What a model says is never run, loaded or followed, whatever it says."""

import re

from playwright.sync_api import Page, expect

from tests.browser.chatting import answers_of, require_state, say
from tests.browser.tab import Tab

ELSEWHERE = "http://elsewhere.invalid"
PAYLOADS = (
    "<script>pwned=1</script>",
    "<script src=//elsewhere.invalid/x.js></script>",
    "<img src=x onerror=pwned=1>",
    f"<img src={ELSEWHERE}/pixel.png>",
    f"![a picture]({ELSEWHERE}/pixel.png)",
    '![x](x "onerror=pwned=1")',
    '![x" onerror="pwned=1](y)',
    "<svg onload=pwned=1>",
    "<svg><script>pwned=1</script></svg>",
    "<svg><animate onbegin=pwned=1 attributeName=x dur=1s>",
    "<svg><use href='data:image/svg+xml,<svg id=x onload=pwned=1>#x'></use></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=pwned=1>",
    '<math><mi//xlink:href="data:x,<script>pwned=1</script>">',
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<iframe src=javascript:parent.pwned=1></iframe>",
    f"<iframe src={ELSEWHERE}></iframe>",
    "<object data=javascript:pwned=1></object>",
    f"<embed src={ELSEWHERE}/x.swf>",
    "<body onload=pwned=1>",
    "<details open ontoggle=pwned=1>x</details>",
    "<video><source onerror=pwned=1></video>",
    "<audio src=x onerror=pwned=1>",
    "<input autofocus onfocus=pwned=1>",
    "<form action=javascript:pwned=1><button>go</button></form>",
    "<button form=f formaction=javascript:pwned=1>go</button>",
    "<a href=javascript:pwned=1>go</a>",
    "[go](javascript:pwned=1)",
    "[go](JaVaScRiPt:pwned=1)",
    "[go](java&#115;cript:pwned=1)",
    "[go](<java\tscript:pwned=1>)",
    "[go](data:text/html,<script>pwned=1</script>)",
    "[go](vbscript:pwned=1)",
    "[go][1]\n\n[1]: javascript:pwned=1",
    "<javascript:pwned=1>",
    "javascript://x/%0apwned=1",
    "<style>@import '//elsewhere.invalid/x.css';</style>",
    f"<link rel=stylesheet href={ELSEWHERE}/x.css>",
    f"<meta http-equiv=refresh content='0;url={ELSEWHERE}'>",
    f"<base href={ELSEWHERE}/>",
    f'<p style="background:url({ELSEWHERE}/x)">x</p>',
    '<noscript><p title="</noscript><img src=x onerror=pwned=1>">',
    "<template><script>pwned=1</script></template>",
    "<!--><img src=x onerror=pwned=1>-->",
    "<![CDATA[><img src=x onerror=pwned=1>]]>",
    "`<img src=x onerror=pwned=1>`",
    "```html\n<script>pwned=1</script>\n```",
    '```"><img src=x onerror=pwned=1>\nx\n```',
    "| a |\n| - |\n| <img src=x onerror=pwned=1> |",
    "<xss id=toString tabindex=1 onfocus=pwned=1></xss>",
    "<img name=getElementById><form id=api><input name=attributes>",
    "<div id=toasts>taken</div>",
    "<a id=register>x</a>",
)
HARMLESS = re.compile(
    "A|B|BLOCKQUOTE|BR|BUTTON|CODE|DEL|DIV|EM|H[1-6R]|I|LI|OL|P|PRE|S|SPAN|STRONG|TABLE|TBODY|T[DHR]|THEAD|UL"
)
"""Elements of formatted text, and the buttons that copy code."""
SHOWN = """() => [...document.querySelectorAll(".answer .markdown *")].map((node) => ({
    tag: node.tagName, attributes: [...node.attributes].map(({ name, value }) => [name, value]) }))"""


EVERY_BEGINNING = """async (payloads) => {
    const { createMarkdown } = await import("./page/markdown.js");
    for (const payload of payloads) {
        const node = document.createElement("div");
        node.className = "markdown";
        const answer = document.createElement("div");
        answer.className = "answer";
        answer.append(node);
        document.body.append(answer);
        const markdown = createMarkdown(node);
        for (let length = 1; length <= payload.length; length += 1) markdown.update(payload.slice(0, length));
    }
}"""
AT_ONCE = 9


def _require_harmless(page: Page) -> None:
    shown = page.evaluate(SHOWN)
    assert shown
    assert all(HARMLESS.fullmatch(node["tag"]) for node in shown), shown
    for node in shown:
        for name, value in node["attributes"]:
            assert not name.startswith("on"), node
            assert name not in ("id", "name", "style", "src", "srcdoc", "action", "formaction"), node
            assert name != "href" or value.startswith(("http:", "https:", "mailto:")), node
    assert page.evaluate("typeof pwned") == "undefined"


def test_nothing_that_a_model_says_is_run_loaded_or_followed(tab: Tab) -> None:
    page = tab.go()
    messages = ["\n\n".join(PAYLOADS[start : start + AT_ONCE]) for start in range(0, len(PAYLOADS), AT_ONCE)]
    for index, message in enumerate(messages):
        say(page, message)
        require_state(answers_of(page, "tiny-llama").nth(index), "done")
    _require_harmless(page)
    page.reload()  # what the tab kept is shown again, and is as harmless
    expect(answers_of(page, "tiny-llama")).to_have_count(len(messages))
    _require_harmless(page)
    assert page.url.startswith(tab.url)
    assert page.locator("#toasts").count() == 1


def test_no_beginning_of_an_answer_is_run_loaded_or_followed(tab: Tab) -> None:
    """Each payload by itself, and every text that a stream could show on the way to it."""
    page = tab.go()
    page.evaluate(EVERY_BEGINNING, list(PAYLOADS))
    page.wait_for_load_state("networkidle")
    _require_harmless(page)


def test_neither_is_what_a_person_says(tab: Tab) -> None:
    page = tab.go()
    say(page, PAYLOADS[0])
    expect(page.get_by_role("article", name="Your message")).to_contain_text(PAYLOADS[0])
    require_state(answers_of(page, "tiny-llama"), "done")
    assert page.evaluate("typeof pwned") == "undefined"
