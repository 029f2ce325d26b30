import assert from "node:assert/strict";
import test from "node:test";

import { CHANNEL_COLOURS, Palette, RAMP, contrast, luminance, mix, textOn } from "../../widgets/js/palette.js";

for (const theme of ["light", "dark"]) {
  const palette = new Palette(theme);

  test(`${theme}: channel names are readable on panel and axis`, () => {
    for (const [channel, colour] of Object.entries(CHANNEL_COLOURS[theme])) {
      for (const surface of [palette.panel, palette.sunk]) {
        assert.ok(
          contrast(colour, surface) >= 4.5,
          `${channel} on ${surface}: ${contrast(colour, surface).toFixed(2)}`,
        );
      }
      assert.ok(contrast(colour, palette.onChannel[channel]) >= 4.5, `text on ${channel}`);
    }
    assert.ok(contrast(palette.warning, palette.panel) >= 4.5);
  });

  test(`${theme}: text on every contrast is readable, and nothing is in the middle`, () => {
    for (let i = -20; i <= 20; i++) {
      const fill = palette.diverge(i / 20);
      assert.ok(contrast(fill, textOn(fill)) >= 4.5, `text at ${i / 20}`);
    }
    const [below, nothing, above] = [-1, 0, 1].map((v) => contrast(palette.diverge(v), palette.panel));
    assert.ok(nothing < 1.3 && below > 3 && above > 3);
  });

  test(`${theme}: the ramp moves one way in lightness and its text is readable everywhere`, () => {
    const lightness = palette.fills.map(luminance);
    const sign = Math.sign(lightness.at(-1) - lightness[0]);
    for (let i = 1; i < lightness.length; i++) assert.ok((lightness[i] - lightness[i - 1]) * sign >= 0, `step ${i}`);
    palette.fills.forEach((fill, i) => assert.ok(contrast(fill, palette.texts[i]) >= 4.5, `text at step ${i}`));
  });
}

test("colours are mixed between stops and clamped beyond them", () => {
  assert.equal(mix(["#000000", "#ffffff"], 0.5), "#808080");
  assert.equal(mix(RAMP.light, 7), RAMP.light.at(-1));
  assert.equal(mix(RAMP.light, 0), RAMP.light[0]);
  assert.equal(textOn("#ffffff"), "#000000");
  assert.equal(contrast("#000000", "#ffffff"), 21);
});
