import type { ChatTemplate } from "../data/chat-template.ts";
import type { Message } from "../data/message.ts";

/** What an Ollama Modelfile is written from. */
export interface ModelfileParts {
  /** GGUF file beside it. */
  readonly file: string;
  readonly template: ChatTemplate | undefined;
  readonly bosToken: string | undefined;
  /** Texts that end an answer. */
  readonly stops: readonly string[];
}

/**
 * An Ollama Modelfile. Jinja becomes Ollama's Go template by rendering a chat and cutting it where its messages are;
 * a template that cannot be cut that way is left to Ollama, which reads the one in the GGUF file.
 * https://docs.ollama.com/modelfile
 */
export function modelfile({ file, template, bosToken, stops }: ModelfileParts): string {
  const pieces = template && cut(template, bosToken ?? "");
  const lines = [
    `FROM ./${file}`,
    ...(pieces ? [`TEMPLATE """${goTemplate(pieces)}"""`] : []),
    ...stops.map((stop) => `PARAMETER stop ${JSON.stringify(stop)}`),
  ];
  return `${lines.join("\n")}\n`;
}

/** What a template puts between the messages of a chat. */
interface Pieces {
  /** Before a system turn, between it and the user's, and before a user's turn without one. */
  readonly system: string;
  readonly systemToUser: string;
  readonly user: string;
  /** After a user's turn: what asks for an answer. */
  readonly ask: string;
  /** Between that and an answer that is there already. */
  readonly answer: string;
  readonly assistantToUser: string;
}

/** Contents that occur in no template. */
const MARKS = ["⟦s⟧", "⟦u⟧", "⟦a⟧", "⟦v⟧"] as const;

function cut(template: ChatTemplate, bos: string): Pieces | undefined {
  const turns: Message[] = [
    { role: "user", content: MARKS[1] },
    { role: "assistant", content: MARKS[2] },
    { role: "user", content: MARKS[3] },
  ];
  const between = (messages: readonly Message[], from: string | undefined, to: string | undefined): string | undefined => {
    const { text } = template.render(messages, { addGenerationPrompt: true });
    const start = from === undefined ? 0 : text.indexOf(from) + from.length;
    const end = to === undefined ? text.length : text.indexOf(to);
    return end < start ? undefined : text.slice(start, end);
  }; // prettier-ignore
  try {
    const withSystem: Message[] = [{ role: "system", content: MARKS[0] }, ...turns];
    const ask = between(turns, MARKS[3], undefined);
    const toAnswer = between(turns, MARKS[1], MARKS[2]);
    const found = {
      system: between(withSystem, undefined, MARKS[0]),
      systemToUser: between(withSystem, MARKS[0], MARKS[1]),
      user: between(turns, undefined, MARKS[1]),
      ask,
      answer:
        ask !== undefined && toAnswer?.startsWith(ask) ? toAnswer.slice(ask.length) : undefined,
      assistantToUser: between(turns, MARKS[2], MARKS[3]),
    };
    const texts = Object.values(found);
    if (!texts.every((text) => text !== undefined && !/\{\{|"""/.test(text))) return undefined;
    const pieces = found as Pieces;
    // llama.cpp puts the first token of a text there itself
    const bare = (text: string): string => (text.startsWith(bos) ? text.slice(bos.length) : text);
    return { ...pieces, system: bare(pieces.system), user: bare(pieces.user) };
  } catch {
    return undefined; // a template that refuses such a chat
  }
}

function goTemplate(pieces: Pieces): string {
  const { system, systemToUser, user, ask, answer, assistantToUser } = pieces;
  const beforeUser = `{{ if eq $before "system" }}${systemToUser}{{ else if eq $before "" }}${user}{{ else }}${assistantToUser}{{ end }}`; // prettier-ignore
  return (
    `{{ $before := "" }}{{ range .Messages }}` +
    `{{ if eq .Role "system" }}${system}{{ .Content }}` +
    `{{ else if eq .Role "user" }}${beforeUser}{{ .Content }}${ask}` +
    `{{ else }}${answer}{{ .Content }}{{ end }}{{ $before = .Role }}{{ end }}`
  );
}
