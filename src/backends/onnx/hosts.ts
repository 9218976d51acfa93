import type { Pair, Tensors } from "../backend.ts";
import { expectKind, type ProgramSpec } from "./protocol.ts";
import type { SessionOptions } from "./session.ts";
import { WorkerClient } from "./worker-client.ts";

/** A program that both threads hold. */
export interface Paired {
  readonly program: number;
  /** What it trains. */
  readonly names: readonly string[];
}

/**
 * The threads that host programs. The first owns what lives between runs. The second starts with the first paired
 * program; it has copies of the parameters, and its gradients go over to the first before they are used.
 */
export class Hosts {
  readonly first: WorkerClient = new WorkerClient();
  private second: WorkerClient | undefined;
  /** Parameters that the second has as the first does. */
  private readonly known = new Set<string>();
  private hasGradients = false;

  /** Makes `spec` a program of both threads. */
  async compile(program: number, spec: ProgramSpec, options: SessionOptions): Promise<Paired> {
    this.second ??= new WorkerClient();
    const request = { type: "compile", program, spec, options } as const;
    await bothOf([this.first.send(request), this.second.send(request)]);
    return { program, names: Object.keys(spec.parameters) };
  }

  /** Runs it in both at the same time. */
  async run({ program, names }: Paired, feeds: Pair<Tensors>): Promise<Pair<Tensors>> {
    const missing = names.filter((name) => !this.known.has(name));
    if (missing.length > 0) {
      const { values } = expectKind(await this.first.send({ type: "copy", names: missing }), "tensors"); // prettier-ignore
      await this.second!.send({ type: "set", values }, buffersOf(values));
      for (const name of missing) this.known.add(name);
    }
    this.hasGradients = true;
    const [a, b] = await bothOf([
      this.first.send({ type: "run", program, feeds: feeds[0] }),
      this.second!.send({ type: "run", program, feeds: feeds[1] }),
    ]);
    return [expectKind(a, "tensors").values, expectKind(b, "tensors").values];
  }

  /** Frees a program of both. */
  async release({ program }: Paired): Promise<void> {
    await this.first.send({ type: "release", program });
    await this.second!.send({ type: "release", program });
  }

  /** Parameters of the first have changed: all, or `name`. */
  changed(name?: string): void {
    if (name === undefined) this.known.clear();
    else this.known.delete(name);
  }

  /** Adds the second's gradients to the first's. */
  async collect(): Promise<void> {
    if (!this.hasGradients) return;
    this.hasGradients = false;
    const { values } = expectKind(await this.second!.send({ type: "takeGradients" }), "tensors");
    await this.first.send({ type: "addGradients", values }, buffersOf(values));
  }

  /** Drops all gradients. */
  async clear(): Promise<void> {
    this.hasGradients = false;
    await this.first.send({ type: "clear" });
    await this.second?.send({ type: "clear" });
  }

  /** Lets what was sent finish and ends the threads. */
  async dispose(): Promise<void> {
    await Promise.all([this.first.dispose(), this.second?.dispose()]);
  }
}

/** Both values, once neither is awaited any more. */
async function bothOf<T>(pair: Pair<Promise<T>>): Promise<Pair<T>> {
  await Promise.allSettled(pair);
  return Promise.all(pair);
}

function buffersOf(values: Tensors): ArrayBuffer[] {
  return [...new Set(Object.values(values).map(({ data }) => data.buffer as ArrayBuffer))];
}
