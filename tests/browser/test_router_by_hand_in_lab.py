"""A router by hand in a real JupyterLab: keyboard, hostile text, both themes, English and Chinese."""

import math

from axe_playwright_python.sync_playwright import Axe
from hostile import PAYLOADS
from lab import LabServer, OpenNotebook
from playwright.sync_api import expect

import workbench as wb

HOSTILE = "\u202e" + PAYLOADS[0] + PAYLOADS[11]
SHOWN = "⟨202E⟩" + PAYLOADS[0]
CELLS = [
    "import numpy as np\nimport workbench as wb\nfrom widgets.router_by_hand import RouterByHand\n"
    "from widgets.prediction import Prediction\nfrom workbench.course.texts import texts",
    "trace = wb.open_trace('router.safetensors')\n"
    "hand = RouterByHand(trace, token=5, layer=1)\n"
    f"hand._facts = hand._facts | {{'text': {HOSTILE!r}, 'special': False}}\nhand",
    "texts('zh_CN')\nasked = Prediction('多少？', 4, unit='个'); asked",
    "free = RouterByHand([0.5, 2.0, -1.0, 1.25], top_k=2); free",
]


def test_move_a_logit(lab_notebook: OpenNotebook, lab_server: LabServer, odd: wb.Model) -> None:
    wb.replay(odd, list(range(40, 49)), capture=wb.CaptureSpec(attention=False, lens=False)).save(
        lab_server.root / "router.safetensors"
    )
    notebook = lab_notebook(CELLS)
    page = notebook.page
    hand, free = (page.locator(".moe-by-hand").nth(place) for place in range(2))
    status = hand.get_by_role("status")

    # At the model's logits the page computes what the model used.
    expect(status).to_contain_text("✓ as in the model")
    ours, models = notebook.evaluate(
        "[[hand.experts, hand.weights], [a.tolist() for a in (trace.expert_indices[5, 1],"
        " trace.expert_weights[5, 1].astype(float))]]"
    )
    assert ours[0] == models[0]
    assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(ours[1], models[1], strict=True))
    for rank, (expert, weight) in enumerate(zip(*models, strict=True)):
        slider = hand.get_by_role("slider", name=f"router logit of expert {expert}", exact=True)
        said = slider.get_attribute("aria-valuetext") or ""
        assert said.endswith(f"rank {rank + 1}, weight {weight:.3f}")

    # By keyboard: the last expert is raised to the end of its slider, and is first.
    last = notebook.evaluate("int(np.argmin(hand.logits))")
    slider = hand.get_by_role("slider", name=f"router logit of expert {last}", exact=True)
    slider.focus()
    page.keyboard.press("End")
    expect(status).to_contain_text("→ the model chose otherwise")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(200)
    logits, experts, high = notebook.evaluate("[hand.logits, hand.experts, hand._facts['high']]")
    assert experts[0] == last
    assert math.isclose(logits[last], high - 0.01, abs_tol=1e-6)
    page.keyboard.press("b")  # nothing of the notebook's: cells stay
    assert page.locator(".jp-Notebook .jp-Cell").count() == len(CELLS)
    hand.get_by_role("button", name="Back to the model's logits").press("Enter")
    expect(status).to_contain_text("✓ as in the model")
    notebook.execute(f"hand.logits = [3.0 if e == {last} else x for e, x in enumerate(hand.logits)]")
    expect(hand.locator(".moe-by-hand-rank").nth(last)).not_to_have_text("")

    # Texts are texts.
    expect(hand.locator(".moe-by-hand-header b")).to_contain_text(SHOWN)
    expect(hand.locator(".moe-by-hand-header b")).not_to_contain_text("\u202e")
    assert page.evaluate("window.__hit") is None

    # Chinese, because the lesson asked for it; a language can be changed.
    expect(free.get_by_role("status")).to_contain_text("入选的最后一名")
    expect(free.get_by_role("slider", name="专家 3 的路由 logit")).to_be_visible()
    expect(page.locator(".moe-prediction").get_by_role("button", name="提交猜测")).to_be_visible()
    page.locator(".moe-prediction").get_by_role("textbox", name="你的猜测，单位：个").fill("8")
    page.keyboard.press("Enter")
    expect(page.locator(".moe-prediction").get_by_role("status")).to_contain_text("→ 高了 4，相差 2 倍")
    notebook.execute("hand.language = 'zh_CN'")
    expect(hand.get_by_role("button", name="恢复模型的 logit")).to_be_enabled()
    expect(hand.locator(".moe-by-hand-header")).to_contain_text("第 5 号词元，第 1 层")
    notebook.screenshot("router_by_hand_zh", of=notebook.cell_output(1))
    notebook.execute("hand.language = ''")
    expect(hand.get_by_role("button", name="Back to the model's logits")).to_be_enabled()

    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        notebook.screenshot(f"router_by_hand_{theme}", of=notebook.cell_output(1))
        found = Axe().run(page, context=".moe-by-hand").response["violations"]
        assert [f"{v['id']}: {v['help']}" for v in found if v["impact"] in {"serious", "critical"}] == []
    notebook.screenshot("router_by_hand_free_dark", of=notebook.cell_output(3))
    assert notebook.heard.console_errors == notebook.heard.page_errors == notebook.heard.dialogs == []
