import { LorikeetError } from "../errors.ts";
import { DEFAULT_CHAT_TEMPLATE } from "./default-chat-template.ts";
import { jinja, type Program } from "./jinja-library.ts";
import type { Message } from "./message.ts";
import { strftime } from "./strftime.ts";

/** A range of UTF-16 code units of a text. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** What a template is rendered with, beside the messages. */
export interface RenderOptions {
  /** JSON schemas of the functions that the assistant may call. */
  readonly tools?: readonly unknown[] | undefined;
  /** Whether to open an assistant turn at the end. Default false. */
  readonly addGenerationPrompt?: boolean | undefined;
  /** Further variables of the template, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>> | undefined;
}

/** What a template gives. */
export interface Rendered {
  readonly text: string;
  /** What stands between `{% generation %}` tags, in order; empty when the template has none. */
  readonly generated: readonly Span[];
}

/** A model's chat template. */
export interface ChatTemplate {
  /** The Jinja source. */
  readonly source: string;
  /** Whether the model has no template of its own, so that ChatML stands in. */
  readonly isDefault: boolean;
  /** Whether the template marks what an assistant says by `{% generation %}`. */
  readonly marksGeneration: boolean;
  /** @throws LorikeetError `chat-template` when the template refuses these messages */
  render(messages: readonly Message[], options?: RenderOptions): Rendered;
}

const OPEN = "\ufdd0"; // noncharacters: never in text that is meant to be exchanged
const CLOSE = "\ufdd1";
const MARKERS = /[\ufdd0\ufdd1]/g;
const GENERATION = /\{%[-+]?\s*generation\s*[-+]?%\}/;
// `{% generation %}` becomes a call block, which is also what transformers makes of it
const PRELUDE = "{% macro __generation() %}{{ __open }}{{ caller() }}{{ __close }}{% endmacro %}";

/**
 * The chat template `given` with the globals and filters that transformers gives it; ChatML when there is none.
 * `withTools` is the template of chats that have tools, where a model has one of its own; `now` is what `strftime_now` tells: fixed, so that one run renders every epoch alike.
 * @throws LorikeetError `chat-template` when it is not a template
 */
export function createChatTemplate(
  given: string | undefined,
  options: {
    withTools?: string | undefined;
    bosToken?: string | undefined;
    eosToken?: string | undefined;
    now?: Date;
  } = {},
): ChatTemplate {
  const source = given ?? DEFAULT_CHAT_TEMPLATE;
  const now = options.now ?? new Date();
  const sources = options.withTools === undefined ? [source] : [source, options.withTools];
  const marksGeneration = sources.every((text) => GENERATION.test(text));
  const [program, withTools = program] = sources.map(compile) as [Program, Program?];
  const globals = {
    bos_token: options.bosToken ?? "",
    eos_token: options.eosToken ?? "",
    strftime_now: (format: string) => strftime(now, format),
  };
  return {
    source,
    isDefault: given === undefined,
    marksGeneration,
    render(messages, { tools, addGenerationPrompt = false, variables } = {}) {
      refuseMarkers(messages);
      const hasTools = tools !== undefined && tools.length > 0;
      const context = {
        ...globals,
        messages,
        tools: hasTools ? tools : null,
        add_generation_prompt: addGenerationPrompt,
        ...variables,
      };
      return takeMarkers(run(hasTools ? withTools : program, context));
    },
  };
}

function compile(source: string): Program {
  const calls = source
    .replace(/(\{%[-+]?\s*)generation(\s*[-+]?%\})/g, "$1call __generation()$2")
    .replace(/(\{%[-+]?\s*)endgeneration(\s*[-+]?%\})/g, "$1endcall$2");
  const text = calls === source ? source : PRELUDE + calls;
  try {
    return jinja.parse(jinja.tokenize(text, { lstrip_blocks: true, trim_blocks: true }));
  } catch (cause) {
    throw new LorikeetError(
      "chat-template",
      `Expected a Jinja chat template, got one that does not parse: ${reasonOf(cause)}`,
      { hint: "Correct chat_template in the model's folder, or give another template.", cause },
    );
  }
}

function run(program: Program, context: Readonly<Record<string, unknown>>): string {
  const environment = new jinja.Environment();
  const builtins = { true: true, false: false, none: null, True: true, False: false, None: null };
  const functions = { raise_exception: raise, range, __open: OPEN, __close: CLOSE };
  for (const [name, value] of Object.entries({ ...builtins, ...functions, ...context }))
    environment.set(name, value);
  try {
    return new jinja.Interpreter(environment).run(program).value;
  } catch (cause) {
    throw new LorikeetError(
      "chat-template",
      `The chat template refuses these messages: ${reasonOf(cause)}`,
      {
        hint: "Change the row's turns to what the template expects (their order, their content), or skip it.",
        cause,
      },
    );
  }
}

function raise(message: string): never {
  throw new Error(message);
}

function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  if (step === 0) throw new Error("range() step must not be zero");
  const length = Math.max(0, Math.ceil((to - from) / step));
  return Array.from({ length }, (_, i) => from + i * step);
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function refuseMarkers(messages: readonly Message[]): void {
  const turn = messages.findIndex((message) => MARKERS.test(message.content));
  MARKERS.lastIndex = 0;
  if (turn >= 0)
    throw new LorikeetError(
      "chat-template",
      `Expected message ${turn} without the noncharacters U+FDD0 and U+FDD1, got some`,
      { hint: "Unicode reserves them for programs; remove them from the data." },
    );
}

function takeMarkers(marked: string): Rendered {
  const generated: Span[] = [];
  let text = "";
  let from = 0;
  let start = 0;
  for (const { 0: marker, index } of marked.matchAll(MARKERS)) {
    text += marked.slice(from, index);
    from = index + 1;
    if (marker === OPEN) start = text.length;
    else generated.push({ start, end: text.length });
  }
  return { text: text + marked.slice(from), generated };
}
