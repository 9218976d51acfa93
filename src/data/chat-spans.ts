import { LorikeetError } from "../errors.ts";
import type { ChatTemplate, RenderOptions, Span } from "./chat-template.ts";
import type { Message } from "./message.ts";

/** A rendered chat and what each assistant turn puts into it. */
export interface AnsweredChat {
  readonly text: string;
  /**
   * For each assistant turn, in order (or each `{% generation %}` where the template has it), what the assistant has to say to make it: the answer with its tool calls
   * and the token that ends the turn, without the header that the generation prompt gives.
   */
  readonly answers: readonly Span[];
}

const MARK = "\ufdd2"; // a noncharacter: stands in no template and no answer
const QUESTION: Message = { role: "user", content: "?" };

/**
 * Renders a chat and finds its assistant turns: by `{% generation %}` where the template has it, otherwise by
 * rendering again without the later turns, or with one answer replaced.
 * @throws LorikeetError `chat-spans` when a turn can't be found; `chat-template` when the chat can't be rendered
 */
export function renderAnswers(
  template: ChatTemplate,
  messages: readonly Message[],
  options: RenderOptions = {},
): AnsweredChat {
  const rendered = template.render(messages, { ...options, addGenerationPrompt: false });
  const { text } = rendered;
  const turns = messages.flatMap(({ role }, turn) => (role === "assistant" ? [turn] : []));
  if (template.marksGeneration) {
    if (rendered.generated.length === 0 && turns.length > 0)
      throw spansError(
        `Expected the template's {% generation %} to mark ${turns.length} assistant turns, it marks none`,
      );
    return { text, answers: rendered.generated };
  }
  const answers = turns.map((turn) => {
    const chat = { template, messages, options, text, turn };
    return answerByPrefix(chat) ?? answerByMark(chat);
  });
  return { text, answers };
}

/** What ends an assistant turn, such as `<|im_end|>`; white space only where the template has nothing else. */
export function turnEnding(template: ChatTemplate): string {
  const { text } = template.render([QUESTION, { role: "assistant", content: MARK }]);
  return endingOf(text);
}

interface Turn {
  readonly template: ChatTemplate;
  readonly messages: readonly Message[];
  readonly options: RenderOptions;
  /** The whole chat. */
  readonly text: string;
  readonly turn: number;
}

/** From the end of the prompt of a chat that stops before the turn, to the end of one that stops after it. */
function answerByPrefix(chat: Turn): Span | undefined {
  const { messages, turn, text } = chat;
  const earlier = messages.slice(0, turn);
  const prompt = tryRender(chat, earlier, true);
  const upTo = turn === messages.length - 1 ? text : tryRender(chat, messages.slice(0, turn + 1));
  if (prompt === undefined || !upTo?.startsWith(prompt)) return undefined;
  const { opening, spare } = frameOf(chat);
  const isOpen = opening !== "" && prompt.endsWith(opening);
  if (!isOpen && prompt === tryRender(chat, earlier)) return undefined;
  const end = upTo.endsWith(spare) ? upTo.length - spare.length : upTo.length;
  if (end <= prompt.length || !text.startsWith(upTo.slice(0, end))) return undefined;
  return { start: prompt.length, end };
}

/** What a template puts around an answer. */
interface Frame {
  /** Its generation prompt; empty when it has none. */
  readonly opening: string;
  /** White space between the end of a turn and a next one. */
  readonly spare: string;
}
const frames = new WeakMap<ChatTemplate, Frame>();

/** The frame of the chat's template, seen once in the shortest chat: to render a row again for it would cost as much as to tokenize it. */
function frameOf({ template, options }: Turn): Frame {
  const known = frames.get(template);
  if (known) return known;
  const messages: Message[] = [QUESTION, { role: "assistant", content: MARK }];
  const chat: Turn = { template, messages, options, text: "", turn: 1 };
  const [bare, prompt] = [false, true].map((open) => tryRender(chat, [QUESTION], open));
  const alone = tryRender(chat, messages);
  const frame: Frame = {
    opening: bare !== undefined && prompt?.startsWith(bare) ? prompt.slice(bare.length) : "",
    spare: alone === undefined ? "" : tailOf(alone).slice(endingOf(alone).length),
  };
  frames.set(template, frame);
  return frame;
}

/**
 * For templates that have no generation prompt, or show earlier turns otherwise once later ones follow: what changes
 * in the whole text when the answer is replaced by a mark is the answer.
 */
function answerByMark(chat: Turn): Span {
  const { template, messages, options, text, turn } = chat;
  const marked = withMark(chat);
  const whole = template.render(marked, options).text;
  const at = whole.indexOf(MARK);
  if (at < 0 || at !== whole.lastIndexOf(MARK))
    throw spansError(
      `Expected the chat template to show message ${turn} (assistant) once, it does not`,
    );
  const before = commonPrefix(whole, text);
  const after = Math.min(commonSuffix(whole, text), whole.length - at - 1);
  const answerEnd = text.length - after;
  if (answerEnd <= before && messages[turn]!.content !== "")
    throw spansError(`Expected message ${turn} (assistant) in the rendered chat, it is not there`);

  const alone = tryRender(chat, marked.slice(0, turn + 1));
  const ending = alone === undefined ? "" : endingOf(alone);
  const end = text.startsWith(ending, answerEnd) ? answerEnd + ending.length : answerEnd;
  return { start: afterHeader(chat, before, ending), end };
}

/** What the template puts between the header of the turn and the answer, such as empty thoughts, is said too. */
function afterHeader(chat: Turn, answerStart: number, ending: string): number {
  const earlier = chat.messages.slice(0, chat.turn);
  const bare = tryRender(chat, earlier);
  const header =
    bare === undefined ? "" : (tryRender(chat, earlier, true)?.slice(bare.length) ?? "");
  const at = header === "" ? -1 : chat.text.lastIndexOf(header, answerStart - header.length);
  if (at < 0 || ending.trim() === "") return answerStart;
  const between = chat.text.slice(at + header.length, answerStart);
  return between.includes(ending) ? answerStart : at + header.length;
}

function withMark({ messages, turn }: Turn): Message[] {
  return messages.map((message, i) =>
    i === turn ? { role: "assistant", content: MARK } : message,
  );
}

function tryRender(
  { template, options }: Turn,
  messages: readonly Message[],
  addGenerationPrompt = false,
): string | undefined {
  try {
    return template.render(messages, { ...options, addGenerationPrompt }).text;
  } catch (error) {
    if (error instanceof LorikeetError) return undefined; // a template may refuse part of a chat
    throw error;
  }
}

function tailOf(text: string): string {
  return text.slice(text.indexOf(MARK) + 1);
}

/** The tail of a chat that ends with the mark, without the white space that separates it from a next turn. */
function endingOf(text: string): string {
  const tail = tailOf(text);
  return tail.trimEnd() === "" ? tail : tail.trimEnd();
}

function commonPrefix(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

function commonSuffix(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a.at(-1 - length) === b.at(-1 - length))
    length++;
  return length;
}

function spansError(message: string): LorikeetError {
  return new LorikeetError("chat-spans", message, {
    hint: "Put {% generation %} … {% endgeneration %} around what the assistant says in chat_template, or train on everything with --train-on all.",
  });
}
