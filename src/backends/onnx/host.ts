import { LorikeetError } from "../../errors.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { Caches } from "../caches.ts";
import { Parameters } from "./parameters.ts";
import type { ProgramSpec, Request, Response } from "./protocol.ts";
import type { CreateSession, Session } from "./session.ts";

interface HostedProgram extends Omit<ProgramSpec, "model"> {
  readonly session: Session;
}

/** Runs programs and owns their trainable state, in the thread that it was made in. */
export class Host {
  private readonly createSession: CreateSession;
  private readonly programs = new Map<number, HostedProgram>();
  private readonly parameters = new Parameters();
  private readonly caches = new Caches();

  constructor(createSession: CreateSession) {
    this.createSession = createSession;
  }

  /** Does what `request` asks. */
  async handle(request: Request): Promise<Response> {
    switch (request.type) {
      case "compile": {
        const { model, ...spec } = request.spec;
        this.parameters.declare(spec.parameters);
        this.programs.set(request.program, {
          ...spec,
          session: await this.createSession(model, request.options),
        });
        return { kind: "none" };
      }
      case "run":
        return { kind: "tensors", values: await this.run(request.program, request.feeds) };
      case "release":
        await this.programs.get(request.program)?.session.release();
        this.programs.delete(request.program);
        return { kind: "none" };
      case "get":
        return { kind: "tensor", value: this.parameters.get(request.name) };
      case "set":
        for (const [name, value] of Object.entries(request.values))
          this.parameters.set(name, value);
        return { kind: "none" };
      case "copy":
        return { kind: "tensors", values: copied(this.parameters.feeds(request.names)) };
      case "takeGradients":
        return { kind: "tensors", values: this.parameters.takeGradients() };
      case "addGradients":
        this.parameters.addGradients(gradientsOf(request.values));
        return { kind: "none" };
      case "apply":
        return { kind: "norm", gradNorm: this.parameters.apply(request.update) };
      case "clear":
        this.parameters.clearGradients();
        return { kind: "none" };
    }
  }

  /** Frees all sessions. */
  async dispose(): Promise<void> {
    for (const { session } of this.programs.values()) await session.release();
    this.programs.clear();
  }

  private async run(
    id: number,
    feeds: Readonly<Record<string, Tensor>>,
  ): Promise<Record<string, Tensor>> {
    const program = this.programs.get(id);
    if (!program)
      throw new LorikeetError(
        "program-disposed",
        "Expected a program that is still there, got a disposed one",
      );
    const { session, outputs, gradients, caches } = program;
    const results = await session.run(
      {
        ...feeds,
        ...this.parameters.feeds(Object.keys(program.parameters)),
        ...this.caches.feeds(program.cacheShapes),
      },
      [outputs, gradients, caches].flatMap((values) => Object.values(values)),
    );
    const offset = Number(feeds["cache_offset"]?.data[0] ?? 0);
    for (const [name, value] of Object.entries(caches))
      this.caches.store(name, results[value]!, offset);
    const own = Object.entries(gradients).map(([name, value]) => [name, results[value]!] as const);
    this.parameters.addGradients(gradientsOf(Object.fromEntries(own)));
    return Object.fromEntries(
      Object.entries(outputs).map(([name, value]) => [name, results[value]!]),
    );
  }
}

function gradientsOf(values: Readonly<Record<string, Tensor>>): [string, Float32Array][] {
  return Object.entries(values).map(([name, { data }]) => [name, data as Float32Array]);
}

function copied(values: Readonly<Record<string, Tensor>>): Record<string, Tensor> {
  const copies = Object.entries(values).map(([name, value]) => [
    name,
    { ...value, data: value.data.slice() },
  ]);
  return Object.fromEntries(copies) as Record<string, Tensor>;
}
