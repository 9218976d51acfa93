import type { Message } from "../data/message.ts";
import { createDecoder } from "../generate/decoder.ts";
import { contextOf } from "../models/config.ts";
import { decodeGraph } from "../train/plan.ts";
import { type GeneratedToken, type GenerateOptions, openRow } from "./answer-row.ts";
import type { Model } from "./model.ts";
import { oneAtATime } from "./one-at-a-time.ts";

/**
 * Continues `prompt` token by token, greedily unless `temperature` is set, until an end-of-text token, a stop string
 * or `maxNewTokens`. Every call makes an engine of its own and disposes it.
 * @throws LorikeetError `config-invalid` for options out of their ranges; `context-length` when the prompt leaves no
 * room in the model's context
 */
export async function* generate(
  model: Model,
  prompt: string | readonly Message[],
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedToken, void, undefined> {
  const session = await openSession(model);
  try {
    yield* session.generate(prompt, options);
  } finally {
    await session.dispose();
  }
}

/** An engine that stays ready for several prompts, one after another. @throws LorikeetError `session-busy` */
export interface Session {
  generate(
    prompt: string | readonly Message[],
    options?: GenerateOptions,
  ): AsyncGenerator<GeneratedToken, void, undefined>;
  /** The whole answer to `prompt`. */
  text(prompt: string | readonly Message[], options?: GenerateOptions): Promise<string>;
  dispose(): Promise<void>;
}

/** Opens an engine with `model`'s weights and adapter for generation. */
export async function openSession(model: Model): Promise<Session> {
  const engine = await model.openEngine();
  const context = contextOf(model.checkpoint.config);
  const decoder = createDecoder(engine, (shape) => decodeGraph(model.plan, shape), { context });

  const run = oneAtATime(async function* (
    prompt: string | readonly Message[],
    options: GenerateOptions = {},
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    const row = openRow(model, prompt, options, 0);
    let [logits] = await decoder.start([row.ids]);
    for (;;) {
      yield* row.take(logits!);
      if (row.isDone()) return;
      [logits] = await decoder.next([row.ids.at(-1)!]);
    }
  });

  return {
    generate: run,
    async text(prompt, options) {
      let text = "";
      for await (const token of run(prompt, options)) text += token.text;
      return text;
    },
    async dispose() {
      await decoder.dispose();
      await engine.dispose();
    },
  };
}
