"""A model that is resident elsewhere: the same calls, the same trace, and nothing sent that was not asked for."""

import io
import json
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from loopback_server import reply, serving
from nnsight.modeling import huggingface
from test_families import CASES, SIZES
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench.experiments.attention import AblateHead, MoveSink
from workbench.experiments.continuation import continue_from
from workbench.experiments.experiment import Changed, experiment
from workbench.experiments.experts import Force, MeanOutput, RouteAround, Scale, Swap, ZeroContribution
from workbench.experiments.intervening import Intervention, Reading, intervene
from workbench.experiments.residual import AddVector, PatchResidual

QUESTION = "47 + 85 = ?"
EVERYTHING = wb.CaptureSpec(residual=True)
KEY = "a-secret-of-one-test"
SERVER = Path(__file__).parent / "ndif_server.py"

TOLERANCE = 2e-4
"""Largest difference of a value: one forward over a sequence sums in another order than one token at a time."""

CHANGES: dict[str, Callable[[wb.Model], list[Intervention]]] = {
    "route around": lambda _: [RouteAround({1: [3]})],
    "route around in the chain": lambda _: [RouteAround({0: [1], 1: [2, 3], 2: [5]}, "analysis")],
    "force beside route around": lambda _: [RouteAround({1: [3]}), Force({1: [2], 2: [5]}, "prompt")],
    "scale": lambda _: [Scale({2: [5]}, (3, 20), factor=3.0)],
    "zero contribution": lambda _: [ZeroContribution({0: [1], 3: [2, 3]}, "completion")],
    "swap": lambda _: [Swap({2: {5: 2, 2: 5}})],
    "ablate head": lambda _: [AblateHead({3: [6]})],
    "all at once": lambda model: [
        AddVector(1, np.linspace(-0.5, 0.5, model.d_model), (4, None)),
        RouteAround({1: [3]}),
        AblateHead({0: [1]}),
        Swap({1: {5: 2}}),
    ],
}


@pytest.fixture(scope="module")
def far() -> wb.Model:
    """Its own: nnsight replaces the forward of each module for good."""
    return wb.load("tiny", device="cpu", remote="local")


@pytest.fixture(scope="module")
def baseline(tiny: wb.Model) -> wb.Trace:
    return wb.capture(tiny, QUESTION, effort="medium", seed=4, capture=EVERYTHING)


@pytest.fixture(scope="module")
def address(tiny: wb.Model) -> Iterator[str]:
    """A server in a process of its own, to which our package is not known."""
    command = [sys.executable, str(SERVER), str(tiny.folder), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 120)
        address = process.stdout.readline().strip() if ready else "nothing in two minutes"
        assert address.startswith("http://"), address
        yield address
        process.terminate()


@pytest.fixture
def served(address: str, tiny: wb.Model, monkeypatch: pytest.MonkeyPatch) -> wb.Model:
    monkeypatch.setenv("NDIF_API_KEY", KEY)
    monkeypatch.setitem(huggingface._ID_CACHE, str(tiny.folder), "tiny/served")  # as if the hub had been asked
    return wb.load("tiny", remote=address)


def assert_same(found: wb.Trace, expected: wb.Trace) -> None:
    assert found.arrays.keys() == expected.arrays.keys()
    for name, values in expected.arrays.items():
        assert found.arrays[name].dtype == values.dtype, name
        assert found.arrays[name].shape == values.shape, name
        if name == "top_logprobs" or name == "lens_logprobs":  # float16
            np.testing.assert_allclose(found.arrays[name], values, atol=2e-2, err_msg=name)
        elif values.dtype.kind == "f":
            np.testing.assert_allclose(found.arrays[name], values, atol=TOLERANCE, rtol=0, err_msg=name)
        elif name not in ("top_token_ids", "lens_token_ids"):  # the last of a few alternatives may tie
            np.testing.assert_array_equal(found.arrays[name], values, err_msg=name)


def test_capture_is_what_hooks_capture(far: wb.Model, baseline: wb.Trace, tmp_path: Path) -> None:
    path = tmp_path / "far.safetensors"
    random_state = torch.get_rng_state()
    trace = wb.capture(far, QUESTION, effort="medium", seed=4, capture=EVERYTHING, path=path)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_same(trace, baseline)
    assert trace.meta["truncated"] is None
    assert [s.role for s in trace.spans] == [s.role for s in baseline.spans]
    assert trace.meta["layers"] == baseline.meta["layers"]
    assert trace.meta["sources"] == {**dict.fromkeys(baseline.meta["sources"], "replay"), "token_ids": "live"}
    pattern, sink_mass = trace.attention(2, rows=[31])
    expected = baseline.attention(2, rows=[31])
    np.testing.assert_allclose(pattern, expected[0], atol=TOLERANCE)
    np.testing.assert_allclose(sink_mass, expected[1], atol=TOLERANCE)
    assert_same(wb.open_trace(path), trace)


def test_its_provenance_says_where_it_ran(far: wb.Model) -> None:
    trace = wb.capture(far, QUESTION, effort="low", max_new_tokens=5, temperature=0)
    assert trace.meta["truncated"] == "cut at 5 tokens"
    facts = trace.provenance
    assert facts["remote"] == {"host": "local", "through": "nnsight 0.8.1"}
    assert (facts["device"], facts["dtype"], facts["model"]) == ("remote", "float32", "tiny")
    assert facts["seams"] == {"router": "nnsight"}
    assert facts["sampling"]["max_new_tokens"] == 5
    assert facts["seconds"] > 0


def test_replay_records_what_is_asked(far: wb.Model, tiny: wb.Model, baseline: wb.Trace) -> None:
    spec = wb.CaptureSpec(router=[1, 3], attention=[2], lens=[0, 2], top=4, lens_top=2)
    trace = wb.replay(far, baseline, capture=spec)
    assert_same(trace, wb.replay(tiny, baseline, capture=spec))
    assert trace.meta["routing_agreement"]["differ"] == 0
    bare = wb.CaptureSpec(router=False, attention=False, lens=False)
    trace = wb.replay(far, [5, 3, 8, 1], num_prompt_tokens=1, capture=bare)
    assert not {"router_logits", "queries", "sink_logits", "residual"} & trace.arrays.keys()
    assert trace.provenance["seams"] == {}


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "olmoe", "deepseek_v3", "qwen3"])
def test_every_family(kind: str, tiny: wb.Model) -> None:
    torch.manual_seed(2)
    name, changes = CASES[kind]
    config = AutoConfig.for_model(name, **{**SIZES, "vocab_size": tiny.config.vocab_size, **changes})
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, tensor in [*hf.named_parameters(), *hf.named_buffers()]:
        if name.endswith(("gate.weight", "e_score_correction_bias")):
            torch.nn.init.normal_(tensor, std=0.3)  # zero by default, and every expert would tie
    ids = torch.randint(0, config.vocab_size, (23,), generator=torch.manual_seed(4)).tolist()
    here = wb.load(hf, tokenizer=tiny.tokenizer)
    expected = wb.replay(here, ids, num_prompt_tokens=7, capture=EVERYTHING)
    far = wb.load(hf, tokenizer=tiny.tokenizer, remote="local")
    assert_same(wb.replay(far, ids, num_prompt_tokens=7, capture=EVERYTHING), expected)
    if far.router_layers:
        layer = far.router_layers[-1]
        often = int(np.bincount(np.asarray(expected.expert_indices.sel(layer=layer)).ravel()).argmax())
        found, wanted = (experiment(m, expected, RouteAround({layer: [often]}), generate=False) for m in (far, here))
        assert_same_change(found, wanted)


def assert_same_change(found: Changed, expected: Changed) -> None:
    np.testing.assert_allclose(found.kl, expected.kl, atol=1e-6)
    assert expected.mean_kl > 1e-5, "the change must show"
    assert found.aligned.first_token == expected.aligned.first_token
    assert found.aligned.num_changed == expected.aligned.num_changed
    assert found.routing_overlap is not None
    assert expected.routing_overlap is not None
    np.testing.assert_array_equal(found.routing_overlap, expected.routing_overlap)
    assert found.trace.meta["intervention"] == expected.trace.meta["intervention"]
    assert_same(found.trace, expected.trace)


@pytest.mark.parametrize("name", CHANGES)
def test_experiments_are_those_of_hooks(name: str, far: wb.Model, tiny: wb.Model, baseline: wb.Trace) -> None:
    ids = torch.tensor([baseline.arrays["token_ids"].tolist()])
    with torch.no_grad():
        before = far.hf(ids).logits
    wanted = CHANGES[name](tiny)
    expected = experiment(tiny, baseline, wanted, generate=False)
    assert_same_change(experiment(far, baseline, wanted, generate=False), expected)
    assert (far.edits, far.interventions, far.changed_from) == (None, [], None)
    with torch.no_grad():
        assert torch.equal(far.hf(ids).logits, before)


GENERATING = [name for name in CHANGES if name != "route around in the chain"]


@pytest.mark.parametrize("name", GENERATING)
def test_a_changed_model_generates_as_under_hooks(
    name: str, far: wb.Model, tiny: wb.Model, baseline: wb.Trace
) -> None:
    random_state = torch.get_rng_state()
    wanted = CHANGES[name](tiny)
    with intervene(tiny, wanted, num_prompt_tokens=baseline.num_prompt_tokens):
        expected = wb.capture(tiny, QUESTION, effort="medium", seed=4, max_new_tokens=24)
    with intervene(far, wanted, num_prompt_tokens=baseline.num_prompt_tokens):
        found = wb.capture(far, QUESTION, effort="medium", seed=4, max_new_tokens=24)
    assert_same(found, expected)
    assert found.meta["truncated"] == expected.meta["truncated"]
    assert torch.equal(torch.get_rng_state(), random_state)


def test_controls_are_those_of_hooks(far: wb.Model, tiny: wb.Model, baseline: wb.Trace) -> None:
    found, expected = (
        experiment(m, baseline, RouteAround({2: [1]}), generate=False, controls=3, tolerance=5.0) for m in (far, tiny)
    )
    assert found.rows() == [{**row, "mean_kl": pytest.approx(row["mean_kl"], abs=1e-6)} for row in expected.rows()]
    assert len(found.controls) == 3
    assert found.rank == expected.rank


def test_a_server_without_our_package(served: wb.Model, tiny: wb.Model, baseline: wb.Trace, address: str) -> None:
    assert "runs elsewhere" in repr(served)
    assert {p.device.type for p in served.hf.parameters()} == {"meta"}, "no weights are here"
    trace = wb.capture(served, QUESTION, effort="medium", seed=4, capture=EVERYTHING)
    assert_same(trace, baseline)
    assert trace.provenance["remote"]["host"] == address
    assert (trace.provenance["weights"], trace.provenance["dtype"]) == ("not available", "float32")
    assert KEY not in json.dumps(trace.meta)
    for name in ("force beside route around", "all at once"):
        wanted = CHANGES[name](tiny)
        expected = experiment(tiny, baseline, wanted, generate=False)
        assert_same_change(experiment(served, baseline, wanted, generate=False), expected)
    generated = [experiment(m, baseline, CHANGES["all at once"](tiny)) for m in (served, tiny)]
    assert_same_change(*generated)
    assert generated[0].answer == generated[1].answer != experiment(tiny, baseline, CHANGES["swap"](tiny)).answer


def test_what_ends_a_rollout_is_read_without_weights(tiny: wb.Model, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    tiny.config.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    before = wb.load(str(folder), remote=True).end_token_ids
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 11, 19]}))
    assert wb.load(str(folder), remote=True).end_token_ids == [7, 11, 19] != before
    assert wb.load("tiny", remote=True).end_token_ids == tiny.end_token_ids


def test_loading_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was made"))
    monkeypatch.delenv("NDIF_API_KEY", raising=False)
    model = wb.load("tiny", remote=True)
    assert model.num_experts == 8
    text = r"tiny runs on https://api\.ndif\.us, which needs a key in the environment variable NDIF_API_KEY; it is not"
    with pytest.raises(wb.ModelError, match=text):
        wb.capture(model, QUESTION)
    monkeypatch.setenv("NDIF_API_KEY", KEY)
    with pytest.raises(wb.ModelError, match=r"could not be looked up on the hub, .* Nothing was sent to https://api"):
        wb.capture(model, QUESTION)


@pytest.mark.parametrize(
    ("remote", "text"),
    [
        ("vllm", r"expected remote=True \(NDIF\), remote='local' .* vLLM is not among them"),
        ("ftp://127.0.0.1/x", r"the address of a server of NDIF's kind"),
        (f"https://me:{KEY}@example.org", r"without user, query or fragment"),
        ("https://example.org/#part", r"without user, query or fragment"),
        ("https://example.org/a path", r"without user, query or fragment"),
        ("http://127.0.0.1:abc", r"the address of a server"),
        ("http://127.0.0.1:99999", r"the address of a server"),
        ("http://example.org:5001", r"expected https for example\.org, which is not this machine"),
    ],
)
def test_addresses_that_are_refused(remote: str, text: str) -> None:
    with pytest.raises(wb.ModelError, match=text) as refused:
        wb.load("tiny", remote=remote)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("given", [{"model": "tiny", "device": "cpu"}, {"model": "tiny", "dtype": torch.float32}, {}])
def test_what_a_server_decides_is_not_asked_for(given: dict[str, Any], tiny: wb.Model) -> None:
    with pytest.raises(wb.ModelError, match=r"remote=True: expected the name of a model that is resident there"):
        wb.load(**{"model": tiny.hf, "tokenizer": tiny.tokenizer, "remote": True, **given})


def test_what_a_server_refuses(served: wb.Model, tiny: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(huggingface._ID_CACHE, str(tiny.folder), "tiny/another")
    with pytest.raises(
        wb.ModelError, match=r'did not run on http://127.*"tiny/another".* is not deployed.*status\(\)'
    ):
        wb.replay(served, [5, 3, 8])
    monkeypatch.setenv("NDIF_API_KEY", "wrong-" + KEY)
    with pytest.raises(wb.ModelError, match=r"Failed to send request: invalid API key …\. Nothing came back"):
        wb.replay(served, [5, 3, 8])


def test_no_server(served: wb.Model) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        served.remote = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(wb.ModelError, match=r"tiny did not run on http://127.*refused"):
            wb.replay(served, [5, 3, 8])


def packed(value: Any) -> bytes:
    with io.BytesIO() as file:
        torch.save(value, file)
        return zstandard.ZstdCompressor().compress(file.getvalue())


class Harmful:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("the reply ran code here",))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (reply(packed({"found": Harmful()})), r"is not tensors and plain values, or is damaged \(UnpicklingError\)"),
        (reply(b"no archive"), r"or is damaged \(ZstdError\)"),
        (
            reply(packed({"found": torch.zeros(80 << 20, dtype=torch.uint8)})),
            r"larger than the .* that were asked for",
        ),
        (reply(packed({"other": 1})), r"answered without what was asked for"),
        (
            reply(packed({"found": {"finite": torch.ones(3), "logprobs": torch.ones(3)}})),
            r"logprobs of shape \(3,\), exp",
        ),
        (reply(b"", 302, Location="http://example.org/"), r"302"),
    ],
    ids=["code", "garbage", "too large", "nothing", "another shape", "redirect"],
)
def test_replies_are_not_trusted(answer: Any, text: str, served: wb.Model) -> None:
    done = {"id": "a", "status": "COMPLETED"}
    with serving(reply({"id": "a", "status": "RECEIVED"})) as server:
        host = server.url.removesuffix("/v1")
        server.answers[:] = [*server.answers, reply(done | {"data": f"{host}/result"}), answer]
        served.remote = host
        with pytest.raises(wb.ModelError, match=text):
            wb.replay(served, [5, 3, 8])


def test_a_result_elsewhere_without_tls_is_refused(served: wb.Model) -> None:
    elsewhere = reply({"id": "a", "status": "COMPLETED", "data": "http://example.org/result"})
    with serving(reply({"id": "a", "status": "RECEIVED"}), elsewhere) as server:
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.ModelError, match=r"keeps the result at http://example\.org, without TLS; refused"):
            wb.replay(served, [5, 3, 8])


@pytest.mark.parametrize("redirected", [0, 1], ids=["the job", "its status"])
def test_a_redirect_does_not_carry_the_key_elsewhere(redirected: int, served: wb.Model) -> None:
    with serving(reply({"id": "a", "status": "RECEIVED"})) as elsewhere:
        answers = [reply({"id": "a", "status": "RECEIVED"}), reply({"id": "a", "status": "RECEIVED"})]
        answers[redirected] = reply(b"", 302, Location=f"{elsewhere.url}/request")
        with serving(*answers) as server:
            served.remote = server.url.removesuffix("/v1")
            with pytest.raises(wb.ModelError, match="302"):
                wb.replay(served, [5, 3, 8])
        assert server.asked[0].headers["ndif-api-key"] == KEY
        assert elsewhere.asked == []


def test_what_a_server_says_is_not_printed(
    served: wb.Model, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("workbench.ndif.POLL_SECONDS", 0.01)
    told = [{"id": "a", "status": status, "description": f"\x1b[2J key {KEY}"} for status in ("QUEUED", "RUNNING")]
    done = reply({"id": "a", "status": "ERROR", "description": "the end"})
    with serving(reply(told[0]), *map(reply, told), done) as server:
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.ModelError, match="the end"):
            wb.replay(served, [5, 3, 8])
    printed = "".join(capfd.readouterr())
    assert KEY not in printed
    assert "\x1b[2J" not in printed


def test_a_proxy_of_the_environment_does_not_see_this_machine(
    served: wb.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(reply({"detail": "proxied"}, 500)) as proxy, serving(reply({"detail": "direct"}, 500)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.ModelError, match="direct"):
            wb.replay(served, [5, 3, 8])
    assert proxy.asked == []


def test_a_status_without_end_and_a_job_that_nobody_knows_are_given_up(
    served: wb.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.ndif.POLL_SECONDS", 0.001)
    monkeypatch.setattr("workbench.ndif.UNKNOWN_POLLS", 3)
    began = reply({"id": "a", "status": "RECEIVED"})
    with serving(began, reply({"id": "a", "status": "RUNNING", "description": "x" * (1 << 20)})) as server:
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.ModelError, match=r"larger than the 1,048,576 bytes"):
            wb.replay(served, [5, 3, 8])
    with serving(began, reply({}, 404)) as server:
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.ModelError, match="does not know the job that it took"):
            wb.replay(served, [5, 3, 8])
        assert len(server.asked) == 1 + 4


def test_a_path_that_cannot_be_is_said_before_anything_is_sent(served: wb.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with serving(reply({}, 500)) as server:
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.TraceError, match=r"cannot make the folder of .*trace\.safetensors"):
            wb.capture(served, QUESTION, path=tmp_path / "file" / "trace.safetensors")
    assert server.asked == []


def test_changes_by_channel_are_refused_before_anything_is_sent(served: wb.Model, baseline: wb.Trace) -> None:
    with serving(reply({}, 500)) as server:
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.ModelError, match="generates elsewhere, where no channel is told"):
            experiment(served, baseline, RouteAround({1: [3]}, "final"), controls=2)
    assert server.asked == []


def test_sweeps_and_efforts_run_there(far: wb.Model, tiny: wb.Model, tmp_path: Path) -> None:
    light = wb.CaptureSpec(attention=False, lens=False)
    plan: dict[str, Any] = {"efforts": ("low", "medium"), "samples": 1, "temperature": 0, "capture": light}
    there, here = (
        wb.sweep(model, ["2 + 3 = ?", "41 + 7 = ?"], store=tmp_path / name, **plan)
        for name, model in (("there", far), ("here", tiny))
    )
    assert len(there) == 4
    assert [row["answer"] for row in there.rows()] == [row["answer"] for row in here.rows()]
    ids = [
        [runs[effort][0].arrays["token_ids"].tolist() for effort in plan["efforts"]]
        for runs in (wb.compare_efforts(model, "41 + 7 = ?", **plan) for model in (far, tiny))
    ]
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[0][1]


def test_what_was_drawn_there_is_told_from_what_was_written(far: wb.Model, baseline: wb.Trace) -> None:
    found = continue_from(far, baseline, len(baseline) - 5, max_new_tokens=4)
    start, kept = baseline.num_prompt_tokens, len(baseline) - 5
    assert found.meta["sources"]["token_ids"] == f"live, tokens {start}–{kept - 1} replay"


def test_a_status_that_fails_is_asked_for_again(served: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.ndif.POLL_SECONDS", 0.01)
    failed = reply({"id": "a", "status": "ERROR", "description": f"out of memory, {KEY}"})
    answers = [reply({"id": "a", "status": "RECEIVED"}), reply({}, 503), reply({}, 429), failed]
    with serving(*answers) as server:
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.ModelError, match=r"did not run on .*: out of memory, …\."):
            wb.replay(served, [5, 3, 8])
    assert len(server.asked) == 4
    with serving(answers[0], reply({}, 503)) as server:
        served.remote = server.url.removesuffix("/v1")
        with pytest.raises(wb.ModelError, match=r"503"):
            wb.replay(served, [5, 3, 8])
    assert len(server.asked) == 1 + 6


@pytest.mark.parametrize(
    ("do", "text"),
    [
        (lambda m, _: wb.capture(m, QUESTION, on_token=print), r"from elsewhere it comes as a whole; leave them out"),
        (lambda m, _: wb.capture(m, QUESTION, show=True), r"follow a rollout token by token"),
        (lambda m, t: wb.replay(m, t, force_routing=True), r"force_routing writes to routers that are here"),
        (
            lambda m, t: experiment(m, t, RouteAround({1: [3]}, "final")),
            r"tiny generates elsewhere, where no channel is",
        ),
        (lambda m, t: experiment(m, t, MoveSink({1: [0]}, by=2.0), generate=False), r"attention of layer 1 cannot be"),
        (lambda m, t: experiment(m, t, MeanOutput({1: [2]}), generate=False), r"has no mean outputs of experts: capt"),
        (
            lambda m, t: experiment(m, t, PatchResidual(2, t, (3, 5)), generate=False),
            r"has no patch residual: capture",
        ),
    ],
)
def test_what_only_a_model_that_is_here_can_do(
    do: Callable[[wb.Model, wb.Trace], object], text: str, far: wb.Model, baseline: wb.Trace
) -> None:
    with pytest.raises(wb.ModelError, match=text):
        do(far, baseline)
    assert (far.edits, far.interventions) == (None, [])


def test_hooks_and_batches_say_that_it_runs_elsewhere(far: wb.Model) -> None:
    from workbench.batched_capture import Prompt, capture_batch

    with pytest.raises(wb.ModelError, match=r"tiny was loaded with remote='local', which has no hooks on it: capture"):
        capture_batch(far, [Prompt(QUESTION)])


class Following(RouteAround):
    """A change that looks at the reading while a forward runs."""

    def attach(self, reading: Reading) -> None:
        reading.change_output(
            reading.model.layers[1].mlp.router, "the router", "all", lambda output, _: (output, reading.start)[0]
        )


def test_a_change_that_follows_the_reading_cannot_be_sent(far: wb.Model, baseline: wb.Trace) -> None:
    with pytest.raises(wb.ModelError, match=r"a change of tiny follows the tokens as they are read, so it cannot be"):
        experiment(far, baseline, Following({1: [3]}), generate=False)
