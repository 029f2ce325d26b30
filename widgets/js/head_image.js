// Sink mass of all layers × heads as one small image, scaled up: 1,536 rectangles a step would be slow.

export class HeadImage {
  constructor(numLayers, numHeads) {
    this.canvas = document.createElement("canvas");
    this.canvas.width = Math.max(1, numHeads);
    this.canvas.height = Math.max(1, numLayers);
    this.ctx = this.canvas.getContext("2d", { willReadFrequently: true });
    this.image = this.ctx.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  // `rows` holds each layer's masses, or null where there are none: those pixels stay clear.
  paint(ctx, palette, rows, { x, cell, gap, perGroup, rowHeight }) {
    this.pixels.fill(0);
    rows.forEach((masses, layer) =>
      masses?.forEach((mass, head) => {
        this.pixels[layer * this.canvas.width + head] = palette.pixel(mass);
      }),
    );
    this.ctx.putImageData(this.image, 0, 0);
    ctx.imageSmoothingEnabled = false;
    for (let first = 0; first < this.canvas.width; first += perGroup) {
      const left = x + first * cell + (first / perGroup) * gap;
      ctx.drawImage(this.canvas, first, 0, perGroup, rows.length, left, 0, perGroup * cell, rows.length * rowHeight);
    }
  }
}
