/** Wakes those who wait for something to change. Check what you wait for, and wait, without an await in between. */
export class Gate {
  #waiting: ((wasOpened: boolean) => void)[] = [];

  /** Wake all who wait. */
  open(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake(true);
  }

  /** Wait until `open` is called. Returns false after `timeoutMs` without that. */
  wait(timeoutMs?: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = timeoutMs === undefined ? undefined : setTimeout(() => wake(false), timeoutMs);
      const wake = (wasOpened: boolean) => {
        clearTimeout(timer);
        if (!wasOpened) this.#waiting = this.#waiting.filter((one) => one !== wake);
        resolve(wasOpened);
      };
      this.#waiting.push(wake);
    });
  }
}
