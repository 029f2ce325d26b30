"""What depends on a span: the predictions of a model that does not get to see it."""

from workbench.experiments.attention import SuppressSpan
from workbench.experiments.experiment import experiment
from workbench.labelled import Labelled
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["suppression"]


def suppression(model: Model, trace: Trace, span: tuple[int, int]) -> Labelled:
    """Return how far each token's prediction moves when a span is hidden from all later tokens, heads and layers.

    The model reads the trace's own tokens twice, as they are and with the span's keys masked, so this is a result of
    an intervention. It is of the span, which everything in between loses too, and not of one token's look at it.

    Args:
        model: that made the trace, or any to read it.
        trace: a whole trace.
        span: its first token, and one past its last.

    Returns:
        [token] KL(as it is ‖ hidden) in nats over the full vocabulary, of the distribution each token was drawn from.

    Raises:
        ModelError: see `experiment`.
    """
    return experiment(model, trace, SuppressSpan(span), generate=False).kl
