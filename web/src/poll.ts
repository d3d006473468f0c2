// Asking again and again, while somebody looks.

import type { ReactiveController, ReactiveControllerHost } from "lit";

/** Poll calls ask at once and then a while after each answer, while the page is visible, until ask says that it was the last time. */
export class Poll implements ReactiveController {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private generation = 0;
  private done = false;

  constructor(
    host: ReactiveControllerHost,
    private readonly ask: () => Promise<"again" | "done">,
    private readonly interval: number,
  ) {
    host.addController(this);
  }

  hostConnected(): void {
    document.addEventListener("visibilitychange", this.visibility);
    this.now();
  }

  hostDisconnected(): void {
    document.removeEventListener("visibilitychange", this.visibility);
    this.generation++;
    clearTimeout(this.timer);
  }

  /** now asks at once, whatever was being asked before. */
  now(): void {
    this.done = false;
    void this.round(++this.generation);
  }

  private readonly visibility = (): void => {
    if (!document.hidden && !this.done) this.now();
  };

  private async round(generation: number): Promise<void> {
    clearTimeout(this.timer);
    const result = await this.ask();
    if (generation !== this.generation) return;
    this.done = result === "done";
    if (!this.done && !document.hidden) this.timer = setTimeout(() => void this.round(generation), this.interval);
  }
}
