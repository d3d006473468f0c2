// A stream's events as they come, over as many connections as it takes.

import { ApiError, type Batch, type End, followAddress, getStream, type Start, type Stream } from "./api";

export interface Listener {
  /** A batch, and the position after it. */
  batch(batch: Batch, next: string): void;
  state(stream: Stream): void;
  end(end: End): void;
  /** Whether events can come now; the error is why they cannot. After an error that is not temporary no more come. */
  connected(yes: boolean, error?: ApiError): void;
}

const firstDelay = 500;
const maxDelay = 10_000;

/**
 * Source follows a stream from a position until it ends or close is called. The browser itself resumes a connection that broke, with the
 * id of the last event; what it gives up (a server that answers with an error, as one that is starting does) is tried again here.
 */
export class Source {
  private events: EventSource | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private delay = firstDelay;
  private closed = false;

  constructor(
    private readonly project: string,
    private readonly path: string,
    private start: Start,
    private readonly listener: Listener,
  ) {
    this.open();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.events?.close();
  }

  private open(): void {
    const events = new EventSource(followAddress(this.project, this.path, this.start));
    this.events = events;
    events.onopen = () => {
      this.delay = firstDelay;
      this.listener.connected(true);
    };
    events.onmessage = (e: MessageEvent<string>) => {
      this.start = { index: e.lastEventId };
      this.listener.batch(JSON.parse(e.data) as Batch, e.lastEventId);
    };
    events.addEventListener("state", (e: MessageEvent<string>) => this.listener.state(JSON.parse(e.data) as Stream));
    events.addEventListener("end", (e: MessageEvent<string>) => {
      this.close();
      this.listener.end(JSON.parse(e.data) as End);
    });
    events.addEventListener("fault", (e: MessageEvent<string>) => {
      const { code, message } = JSON.parse(e.data) as { code: string; message: string };
      this.failed(new ApiError(code, message));
    });
    events.onerror = () => {
      if (events.readyState === EventSource.CLOSED) void this.diagnose();
      else this.listener.connected(false);
    };
  }

  // An EventSource does not tell what the server answered, so the stream is asked for in the ordinary way.
  private async diagnose(): Promise<void> {
    let error = new ApiError("unreachable", "The connection was refused.");
    try {
      await getStream(this.project, this.path);
    } catch (e) {
      if (e instanceof ApiError) error = e;
    }
    if (!this.closed) this.failed(error);
  }

  private failed(error: ApiError): void {
    this.events?.close();
    this.listener.connected(false, error);
    if (!error.temporary) {
      this.close();
      return;
    }
    this.timer = setTimeout(() => this.open(), this.delay);
    this.delay = Math.min(this.delay * 2, maxDelay);
  }
}
