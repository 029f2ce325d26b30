// What the token strip can be coloured by: one number per token, with the scale it is drawn on.

import { here, missing } from "./reading.js";

export const QUANTITIES = {
  channel: { label: "channel" },
  surprisal: { label: "surprisal", unit: "nats", top: () => 4 },
  entropy: { label: "entropy", unit: "nats", top: () => 4 },
  router_entropy: { label: "router entropy", unit: "nats", top: (facts) => Math.log(facts.numExperts) },
  sink_mass: { label: "sink mass", unit: "", top: () => 1 },
  expert_weight: { label: "expert weight", unit: "", top: () => 1 },
};

// What the quantity is of: the whole draw, a layer, a head, an expert.
function subject(name, { layer, head, expert }) {
  if (name === "router_entropy") return `L${layer}`;
  if (name === "sink_mass") return `L${layer} h${head}`;
  if (name === "expert_weight") return `L${layer} e${expert}`;
  return "";
}

// One value per token, or why there is none; cached by what it depends on.
export class Quantities {
  constructor(reading) {
    this.reading = reading;
    this.cached = null;
  }

  of(selection) {
    const id = `${selection.colorBy} ${subject(selection.colorBy, selection)}`;
    if (this.cached?.id !== id) {
      const found = this.compute(selection);
      if (found.state !== "here") return { id, ...found };
      this.cached = { id, ...found, top: QUANTITIES[selection.colorBy].top?.(this.reading.facts) };
    }
    return this.cached;
  }

  compute({ colorBy, layer, head, expert }) {
    const { blocks, facts } = this.reading;
    if (colorBy === "channel") return here({ values: null });
    if (colorBy === "surprisal") return this.whole("logprobs", "surprisal", (v) => -v);
    if (colorBy === "entropy") return this.whole("entropy", "entropy", (v) => v);
    if (colorBy === "expert_weight") return this.expertWeight(layer, expert);
    if (!blocks.has(colorBy, layer)) return missing(`${QUANTITIES[colorBy].label} of layer ${layer} not captured`);
    if (colorBy === "router_entropy") return loaded(blocks.layerColumn("router_entropy", layer), "router entropy", this.reading);
    const span = blocks.headSpan("sink_mass", layer, head, 0, facts.numTokens);
    return loaded(span && span.values, "sink mass", this.reading);
  }

  whole(name, label, change) {
    const { blocks } = this.reading;
    return blocks.has(name)
      ? here({ values: blocks.get(`all/${name}`).map(change) })
      : missing(`${label} not captured`);
  }

  // The weight given to one expert; 0 where it was not chosen, which was measured.
  expertWeight(layer, expert) {
    const { blocks, facts } = this.reading;
    if (!blocks.has("expert_weights", layer)) return missing(`experts of layer ${layer} not captured`);
    const experts = blocks.layerColumn("expert_indices", layer);
    const weights = blocks.layerColumn("expert_weights", layer);
    if (!experts || !weights) return this.reading.wait("expert weights");
    const values = new Float32Array(facts.numTokens);
    for (let i = 0; i < experts.length; i++) {
      if (experts[i] === expert) values[Math.floor(i / facts.topK)] = weights[i];
    }
    return here({ values });
  }
}

function loaded(values, label, reading) {
  return values ? here({ values }) : reading.wait(label);
}
