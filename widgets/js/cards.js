// Cards of experts in the browser: sent with the widget, or asked of the kernel when first shown.

const CARD_PATIENCE_MS = 8000;
const KEPT_CARDS = 512;

export class Cards {
  // `_cards` of the model holds those that came with it; `onArrive` is called when one came, or none will.
  constructor(model, onArrive) {
    Object.assign(this, { model, onArrive });
    this.sent = model.get("_cards") ?? {};
    this.fetched = new Map(); // key → card, the oldest first
    this.wanted = null;
    this.inFlight = null;
    this.isLate = false;
    this.onMessage = (message) => this.receive(message);
    model.on("msg:custom", this.onMessage);
  }

  close() {
    clearTimeout(this.timer);
    this.model.off("msg:custom", this.onMessage);
  }

  // The card of a key, such as "13/7", or what it waits for. Of several that are waited for, only the last is asked.
  get(key) {
    const card = this.sent[key] ?? this.fetched.get(key);
    if (card) return card;
    this.wanted = key;
    this.ask();
    return { waiting: this.isLate ? "no answer from the kernel: is it running?" : "waiting for the kernel" };
  }

  ask() {
    if (this.inFlight || !this.wanted) return;
    this.inFlight = this.wanted;
    this.wanted = null;
    this.model.send({ card: this.inFlight });
    this.timer = setTimeout(() => {
      this.isLate = true;
      this.onArrive();
    }, CARD_PATIENCE_MS);
  }

  receive(message) {
    if (!message?.card) return;
    clearTimeout(this.timer);
    this.isLate = false;
    this.fetched.set(message.key, message.card);
    if (this.fetched.size > KEPT_CARDS) this.fetched.delete(this.fetched.keys().next().value);
    if (message.key === this.inFlight) this.inFlight = null;
    if (this.fetched.has(this.wanted)) this.wanted = null;
    this.ask();
    this.onArrive();
  }
}
