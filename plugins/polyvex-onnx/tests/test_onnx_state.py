"""The graph is state like any other: it is saved, copied, moved and replaced, and the session follows."""

import copy
import pickle
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from polyvex_onnx import OnnxEncoder, OnnxOptions

from polyvex.errors import ContractError, WeightsError

PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def double(model: onnx.ModelProto) -> None:
    """Other weights of the same size."""
    for tensor in model.graph.initializer:
        if tensor.name in ("weight", "bias"):
            tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))


def loaded(path: str, **options: object) -> OnnxEncoder:
    encoder = OnnxEncoder(OnnxOptions.model_validate({"file": path, "output": "tokens", **options})).eval()
    encoder.load_pretrained()
    return encoder


def test_without_a_graph_nothing_runs(write: Callable[..., str]) -> None:
    with torch.device("meta"):
        planned = OnnxEncoder(OnnxOptions(file=write(), output="tokens"))
    fresh = OnnxEncoder(OnnxOptions(file=write(), output="tokens"))

    assert planned.graph.content.is_meta
    for encoder in (planned, fresh):
        with pytest.raises(WeightsError, match="holds no graph yet; call load_pretrained"):
            encoder(PIXELS)


def test_loading_on_meta_brings_the_graph(write: Callable[..., str]) -> None:
    path = write()
    with torch.device("meta"):
        planned = OnnxEncoder(OnnxOptions(file=path, output="tokens"))
    planned.load_pretrained()

    assert torch.equal(planned(PIXELS).values, loaded(path)(PIXELS).values)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_a_copy_stands_on_its_own(copied: Callable[[OnnxEncoder], OnnxEncoder], write: Callable[..., str]) -> None:
    encoder, other = loaded(write()), loaded(write(change=double))
    values = encoder(PIXELS).values
    twin = copied(encoder)
    encoder.load_state_dict(other.state_dict())

    assert torch.equal(twin(PIXELS).values, values)
    assert torch.allclose(encoder(PIXELS).values, 2 * values)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_the_session_follows_the_bytes(assign: bool, inference: bool, write: Callable[..., str]) -> None:
    with torch.inference_mode(inference):
        encoder, other = loaded(write()), loaded(write(change=double))
        before = encoder(PIXELS).values
        session = encoder.graph._session
        again = encoder(PIXELS).values
        assert encoder.graph._session is session, "the same bytes must not cost a new session"

        encoder.load_state_dict(other.state_dict(), assign=assign)

        assert torch.equal(again, before)
        assert torch.allclose(encoder(PIXELS).values, 2 * before)


def test_half_precision_leaves_the_bytes_alone(write: Callable[..., str]) -> None:
    encoder = loaded(write())
    wanted = encoder(PIXELS).values

    halved = copy.deepcopy(encoder).bfloat16()(PIXELS.bfloat16()).values

    assert halved.dtype == torch.bfloat16
    assert torch.allclose(halved.float(), wanted, atol=0.02)


def test_it_cannot_be_trained(write: Callable[..., str]) -> None:
    encoder = loaded(write()).requires_grad_(True)

    assert list(encoder.parameters()) == []
    assert not encoder(PIXELS.clone().requires_grad_()).values.requires_grad


def test_a_file_that_changed_is_refused(write: Callable[..., str]) -> None:
    encoder = OnnxEncoder(OnnxOptions(file=write(), output="tokens"))
    write(change=lambda model: model.graph.node[1].ClearField("name"))

    with pytest.raises(WeightsError, match="The file was changed; build the encoder again"):
        encoder.load_pretrained()


def test_bytes_that_are_no_graph_are_refused(write: Callable[..., str]) -> None:
    encoder = loaded(write())
    encoder.graph.content.fill_(7)

    with pytest.raises(WeightsError, match="cannot load the graph"):
        encoder(PIXELS)


def test_a_graph_that_mixes_images_is_found_out(write: Callable[..., str]) -> None:
    """It says that it takes any number of images, but was exported for one."""

    def join(model: onnx.ModelProto) -> None:
        model.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.int64([1, 8, -1]), "flat"))

    encoder = loaded(write(change=join))

    assert encoder(PIXELS[:1]).values.shape == (1, 16, 8)
    with pytest.raises(ContractError, match=r"gave \(1, 32, 8\) for 2 images, expected \(2, 16, 8\)"):
        encoder(PIXELS)
