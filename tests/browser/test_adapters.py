"""The adapters view: the list, registering, versions, and what is refused."""

from playwright.sync_api import expect

from tests.browser.adapting import open_adapter, open_adapters, payloads, register, row_of, upload
from tests.browser.chatting import answers_of, say
from tests.browser.making import soft_prompt, trained_prompt
from tests.browser.tab import Tab
from tests.server.building import Running

TEN_THOUSAND = """
    const asked = window.fetch;
    window.fetch = async (url, init) => {
        const answer = await asked(url, init);
        if (!String(url).endsWith("v1/adapters")) return answer;
        const { data: [record] } = await answer.json();
        const named = (i) => ({ ...record, id: `team-${i}`, usage: { ...record.usage, requests: i } });
        return Response.json({ data: Array.from({ length: 10000 }, (_, i) => named(i)), damaged: [] });
    };
"""
"""Lets the page read its one adapter ten thousand times, under other names."""


def test_a_registered_adapter_is_verified_listed_and_shown_with_its_curve(tab: Tab) -> None:
    page = open_adapters(tab)
    expect(page.get_by_text("No adapters yet")).to_be_visible()
    dialog = register(page, "support", trained_prompt(20).by_name())
    expect(dialog.get_by_text("support is registered")).to_be_visible()
    expect(dialog.get_by_text("verified", exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Details").click()
    detail = page.get_by_role("dialog", name="support")
    expect(detail.get_by_role("img", name="Loss from 2.62 to 0.27 in 60 steps")).to_be_visible()
    expect(detail.get_by_text("0 % → 88.5 %")).to_be_visible()
    detail.get_by_text("Model card").click()
    expect(detail.get_by_text("<script>window.pwned=1</script>")).to_be_visible()  # shown, not run
    assert page.evaluate("window.pwned") is None
    page.keyboard.press("Escape")
    row = row_of(page, "support")
    for text in ("prompt tuning", "verified", "exact 0 % → 88.5 %", "in memory", "asked 0 ×"):
        expect(row.get_by_text(text, exact=False).first).to_be_visible()


def test_dropped_files_fill_the_form_and_a_tar_is_looked_into(tab: Tab) -> None:
    page = open_adapters(tab)
    upload(tab.url, "support", trained_prompt(20))
    page.evaluate(
        """async () => {
            const tar = await (await fetch("v1/adapters/support/export")).blob();
            const transfer = new DataTransfer();
            transfer.items.add(new File([tar], "support.tar"));
            transfer.items.add(new File(["no"], "notes.txt"));
            const view = document.getElementById("adapters");
            view.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_have_value("support")
    expect(dialog.get_by_text("is not part of an adapter")).to_be_visible()
    dialog.get_by_label("Name").fill("copied")
    dialog.get_by_role("button", name="Register").click()
    expect(dialog.get_by_text("copied is registered")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(row_of(page, "copied")).to_be_visible()


def test_a_refused_upload_says_why_in_the_servers_words_and_changes_nothing(tab: Tab) -> None:
    page = open_adapters(tab)
    files = soft_prompt(5).by_name()
    dialog = register(page, "broken", files | {"adapter_model.safetensors": b"\x00" * 64})
    refusal = dialog.get_by_text("The server refuses it").locator("..")
    expect(refusal).to_contain_text("adapter_model.safetensors")
    expect(refusal).to_contain_text("adapter_invalid")
    dialog.get_by_label("Name").fill("tiny-llama")
    weights = {"adapter_model.safetensors": files["adapter_model.safetensors"]}
    dialog.locator("input[type=file]").set_input_files(payloads(weights))
    dialog.get_by_role("button", name="Register").click()
    expect(refusal).to_contain_text("base model")
    page.keyboard.press("Escape")
    expect(page.get_by_text("No adapters yet")).to_be_visible()


def test_register_chat_roll_back(tab: Tab, server: Running) -> None:
    page = open_adapters(tab)
    register(page, "support", soft_prompt(5).by_name())
    page.get_by_role("dialog").get_by_role("button", name="Chat").click()
    say(page, "hello")
    expect(answers_of(page, "support").last).to_contain_text("(5 rows) hello")
    second = upload(server.url, "support", soft_prompt(9))
    say(page, "again")
    expect(answers_of(page, "support").last).to_contain_text("(9 rows) again")
    page.get_by_role("link", name="Adapters").click()
    detail = open_adapter(page, "support")
    expect(detail.get_by_role("row").filter(has_text=second[:8])).to_contain_text("current")
    detail.get_by_role("button", name="Let the name stand for version").click()
    page.get_by_role("dialog", name="Let support stand for").get_by_role("button", name="Use this version").click()
    expect(detail.get_by_role("row").filter(has_text=second[:8])).not_to_contain_text("current")
    detail.get_by_role("button", name="Chat", exact=True).click()
    say(page, "once more")
    expect(answers_of(page, "support").last).to_contain_text("(5 rows) once more")


def test_pin_alias_verify_and_delete(tab: Tab) -> None:
    upload(tab.url, "support", trained_prompt(20))
    page = open_adapters(tab)
    detail = open_adapter(page, "support")
    detail.get_by_role("button", name="Pin", exact=True).click()
    expect(detail.get_by_role("button", name="Unpin")).to_be_visible()
    detail.get_by_role("button", name="Add an alias").click()
    asking = page.get_by_role("dialog", name="Add an alias")
    asking.get_by_label("Alias").fill("prod")
    page.keyboard.press("Enter")
    expect(detail.get_by_role("listitem").filter(has_text="prod")).to_be_visible()
    detail.get_by_role("button", name="Replay probes").click()
    expect(page.get_by_text("The probes of support were replayed")).to_be_visible()
    detail.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog", name="Delete support?").get_by_role("button", name="Delete").click()
    expect(detail.get_by_role("alert")).to_contain_text("alias")  # the server refuses while an alias stands for it
    detail.get_by_role("button", name="Remove the alias prod").click()
    page.get_by_role("dialog", name="Remove the alias prod").get_by_role("button", name="Remove", exact=True).click()
    expect(detail.get_by_role("listitem")).to_have_count(0)
    detail.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog", name="Delete support?").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No adapters yet")).to_be_visible()


def test_ten_thousand_adapters_are_searched_sorted_and_paged(tab: Tab) -> None:
    upload(tab.url, "support", trained_prompt(20))
    page = tab.page
    page.add_init_script(TEN_THOUSAND)
    open_adapters(tab)
    expect(page.get_by_text("1 to 50 of 10,000")).to_be_visible()
    assert page.locator("#adapters tbody tr").count() == 50
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("51 to 100 of 10,000")).to_be_visible()
    page.get_by_label("Order").select_option(label="Most used")
    expect(page.locator("#adapters tbody tr").first).to_contain_text("team-9999")
    page.get_by_label("Search adapters").fill("team-123")
    expect(page.locator("#adapters tbody tr")).to_have_count(11)
