// The keyboard inside the map: a cursor on one cell, moved by the arrow keys while the map has the focus.

import { h, setData } from "./surface.js";

const FAR = 10; // cells that shift moves by
const SMALLEST_FRAME = 9; // px, so that the cursor is seen on cells of a pixel
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// The cell nearest to one, within a map of a size.
export function withinMap({ row, column }, { height, width }) {
  const within = (at, count) => Math.max(0, Math.min(count - 1, at));
  return { row: within(row, height), column: within(column, width) };
}

// The cell that a key leads to, or undefined for a key that does not move.
export function movedCursor({ row, column }, { key, shiftKey }, size) {
  if (key === "Home") return { row, column: 0 };
  if (key === "End") return { row, column: size.width - 1 };
  if (!MOVES[key]) return undefined;
  const [down, right] = MOVES[key].map((step) => step * (shiftKey ? FAR : 1));
  return withinMap({ row: row + down, column: column + right }, size);
}

export class MapCursor {
  constructor(map) {
    this.map = map;
    this.cell = null; // {row, column} while the map has the focus
    this.element = h("div", { class: "moe-map-cursor", hidden: true });
    const { canvas } = map.surface;
    canvas.tabIndex = 0;
    canvas.addEventListener("focus", () => this.start());
    canvas.addEventListener("blur", () => this.stop());
    canvas.addEventListener("keydown", (event) => this.press(event));
    // A click opens a cell, and the keys stay those of the view.
    canvas.addEventListener("mousedown", (event) => {
      event.preventDefault();
      map.view.root.focus({ preventScroll: true });
    });
  }

  // Begin at what the row of the selected token reads most.
  start() {
    const { shown } = this.map;
    const row = Math.max(0, shown?.row ?? 0);
    this.cell = { row, column: shown ? Math.max(0, shown.best(row)) : 0 };
    this.place();
  }

  stop() {
    this.cell = null;
    this.place();
    this.map.writeHint(null);
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { map } = this;
    const { shown } = map;
    const moved = this.cell && shown && movedCursor(this.cell, event, shown);
    if (moved) this.cell = moved;
    else if (event.key === "Enter" && this.cell && shown) shown.open(this.cell.row, this.cell.column);
    else if (event.key === "Escape" && !map.close()) map.view.root.focus();
    else if (event.key !== "Escape" && !MOVES[event.key]) return; // a key of the view
    event.preventDefault();
    event.stopPropagation();
    this.place();
  }

  // Put the frame on the cell, of what is shown now, and say what is in it.
  place() {
    const { shown, box } = this.map;
    const { element } = this;
    element.hidden = !this.cell || !shown || !box;
    setData(this.map.element, "cursor", element.hidden ? "" : `${this.cell.row}:${this.cell.column}`);
    if (element.hidden) return;
    this.cell = withinMap(this.cell, shown);
    const { x, y, cell } = box;
    const [width, height] = [cell.width, cell.height].map((size) => Math.max(SMALLEST_FRAME, size));
    element.style.left = `${x + (this.cell.column + 0.5) * cell.width - width / 2}px`;
    element.style.top = `${y + (this.cell.row + 0.5) * cell.height - height / 2}px`;
    element.style.width = `${width}px`;
    element.style.height = `${height}px`;
    setData(this.map.element, "cursor", `${this.cell.row}:${this.cell.column}`);
    this.map.writeHint(this.cell);
  }
}
