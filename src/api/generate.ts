import { type ChatStops, chatStops } from "../data/chat-stops.ts";
import type { Message } from "../data/message.ts";
import { LorikeetError } from "../errors.ts";
import { createDecoder } from "../generate/decoder.ts";
import { sampleToken, type SamplingOptions } from "../generate/sampling.ts";
import { stopFilter } from "../generate/stop-text.ts";
import { Random } from "../tensor/random.ts";
import { decodeGraph } from "../train/plan.ts";
import type { Model } from "./model.ts";

/** How text is generated. */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens to generate at most; 128 by default. */
  readonly maxNewTokens?: number;
  /** Texts that end generation; they are not given out. */
  readonly stop?: readonly string[];
  readonly seed?: number;
  /** The prompt of a chat gets an opened assistant turn and the template's own special tokens; default true. */
  readonly addGenerationPrompt?: boolean;
}

/** One generated token and the text that it completes (empty in the middle of a character). */
export interface GeneratedToken {
  readonly id: number;
  readonly text: string;
}

/** Ids of `prompt`: a text as it stands, or a chat rendered by the model's template. */
export function promptIds(
  model: Model,
  prompt: string | readonly Message[],
  options: GenerateOptions = {},
): number[] {
  if (typeof prompt === "string") return model.tokenizer.encode(prompt);
  const { text } = model.chatTemplate.render(prompt, {
    addGenerationPrompt: options.addGenerationPrompt ?? true,
  });
  return model.tokenizer.encode(text, { addSpecialTokens: false });
}

/**
 * Continues `prompt` token by token, greedily unless `temperature` is set, until an end-of-text token, a stop string
 * or `maxNewTokens`. Every call makes an engine of its own and disposes it.
 * @throws LorikeetError `context-length` when the prompt leaves no room in the model's context
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

/** An engine that stays ready for several prompts. */
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
  const decoder = createDecoder(engine, (shape) => decodeGraph(model.plan, shape));

  async function* run(
    prompt: string | readonly Message[],
    options: GenerateOptions = {},
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    const ids = promptIds(model, prompt, options);
    const limit = roomFor(model, ids.length, options.maxNewTokens ?? 128);
    const random = new Random(options.seed ?? 0);
    const stream = model.tokenizer.stream({ skipSpecialTokens: true });
    const ends = stopsOf(model, prompt);
    const filter = stopFilter([...(options.stop ?? []), ...ends.strings]);
    let [logits] = await decoder.start([ids]);
    for (let count = 0; count < limit; count++) {
      const id = sampleToken(logits!, ids, options, random);
      if (ends.ids.includes(id)) break;
      ids.push(id);
      const { text, stopped } = filter.push(stream.push(id));
      yield { id, text };
      if (stopped) return;
      if (count + 1 < limit) [logits] = await decoder.next([id]);
    }
    const rest = filter.push(stream.flush()).text + filter.flush();
    if (rest !== "") yield { id: ids.at(-1)!, text: rest };
  }

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

/** What ends the answer to `prompt`. */
export function stopsOf(model: Model, prompt: string | readonly Message[]): ChatStops {
  if (typeof prompt === "string") return { ids: model.tokenizer.specials.stopIds, strings: [] };
  return chatStops(model.chatTemplate, model.tokenizer);
}

/** How many tokens of `wanted` fit after a prompt. @throws LorikeetError `empty-prompt`, `context-length` */
export function roomFor(model: Model, promptLength: number, wanted: number): number {
  const context = Number(model.checkpoint.config["max_position_embeddings"] ?? Infinity);
  if (promptLength === 0)
    throw new LorikeetError("empty-prompt", "Expected a prompt of at least one token, got none");
  if (promptLength >= context)
    throw new LorikeetError(
      "context-length",
      `Expected a prompt shorter than the model's context of ${context} tokens, got ${promptLength}`,
    );
  return Math.min(wanted, context - promptLength);
}
