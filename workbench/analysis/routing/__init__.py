"""How a mixture of experts routes. Arrays in, labelled arrays out.

Every result says in its ``source`` what it is and on how many tokens. Keep prompt and completion apart, as prefill
and decode route differently: pass the rows of one phase, of one trace or of many::

    expert_load(trace[trace.num_prompt_tokens :].expert_indices, 32)
    expert_load(TokenSet(store, phase="completion").rows("expert_indices"), 32)

Measures that add up over tokens read such blocks one at a time, in memory that does not grow with their number;
`router_entropy` and `routing_margin` give a value per token, and keep those.

Shapes: T tokens, L layers, E experts, k experts per token. Logarithms are natural unless a ``base`` says otherwise.
"""

from workbench.analysis.routing.agreement import routing_jaccard, routing_overlap
from workbench.analysis.routing.coactivation import coactivation, coactivation_lift
from workbench.analysis.routing.contrast import expert_contrast
from workbench.analysis.routing.information import Information
from workbench.analysis.routing.load import expert_load, load_cv, load_divergence, load_entropy, load_gini
from workbench.analysis.routing.paths import path_information, routing_paths
from workbench.analysis.routing.permutation import PermutationTest, permutation_test
from workbench.analysis.routing.router import load_balance_loss, router_entropy, router_z_loss, routing_margin
from workbench.analysis.routing.specialization import TokenSpecialization, token_information, token_specialization

__all__ = [
    "Information",
    "PermutationTest",
    "TokenSpecialization",
    "coactivation",
    "coactivation_lift",
    "expert_contrast",
    "expert_load",
    "load_balance_loss",
    "load_cv",
    "load_divergence",
    "load_entropy",
    "load_gini",
    "path_information",
    "permutation_test",
    "router_entropy",
    "router_z_loss",
    "routing_jaccard",
    "routing_margin",
    "routing_overlap",
    "routing_paths",
    "token_information",
    "token_specialization",
]
