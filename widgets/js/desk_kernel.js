// What the desk's view asks of Python: each question has a number, and each answer names it. No answer is said too.

const PATIENCE_MS = 8000;

export class DeskKernel {
  // `onLate` is told when an answer is waited for longer than patience lasts, and when the last of those came.
  constructor(model, onLate = () => {}) {
    Object.assign(this, { model, onLate, waiting: new Map(), own: Math.random().toString(36).slice(2), number: 0 });
    this.onMessage = (message) => this.receive(message);
    model.on("msg:custom", this.onMessage);
  }

  // Resolves to the answer, of which `error` says why something was not done. It waits as long as the page is there.
  ask(what, rest = {}) {
    const id = `${this.own}/${this.number++}`;
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.late(id), PATIENCE_MS);
      this.waiting.set(id, { resolve, timer, isLate: false });
      try {
        this.model.send({ do: what, id, ...rest });
      } catch {
        this.late(id); // the connection to the kernel is gone
      }
    });
  }

  late(id) {
    const question = this.waiting.get(id);
    if (!question) return;
    question.isLate = true;
    this.onLate(true);
  }

  receive(message) {
    const question = this.waiting.get(message?.to);
    if (!question) return;
    clearTimeout(question.timer);
    this.waiting.delete(message.to);
    if (question.isLate && ![...this.waiting.values()].some((q) => q.isLate)) this.onLate(false);
    question.resolve(message);
  }

  close() {
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.model.off("msg:custom", this.onMessage);
  }
}
