/** Something that does not stop a run. */
export interface DataWarning {
  /** Documented in docs/errors.md. */
  readonly code: string;
  readonly message: string;
}

/** Counts that warnings are about. */
export interface DataCounts {
  readonly rows: number;
  readonly badRows: number;
  /** The first bad rows, described. */
  readonly firstFaults: readonly string[];
  readonly untrainedRows: number;
  /** Untrained rows whose answers were cut off. */
  readonly lostAnswers: number;
  readonly cutRows: number;
  readonly cutTokens: number;
  /** Longest sample in tokens, as asked for and as the model allows. */
  readonly askedLength: number;
  readonly maxLength: number;
  /** Rows with tools or calls of them that the chat template does not show. */
  readonly hiddenTools: number;
  /** Whether chats were rendered by the template that stands in for a missing one. */
  readonly usesDefaultTemplate: boolean;
}

/** What the user should see about data that was read. */
export function dataWarnings(counts: DataCounts): DataWarning[] {
  const { rows, badRows, untrainedRows, lostAnswers, cutRows, maxLength } = counts;
  const lost = lostAnswers > 0 ? ` (${lostAnswers} because their answers were cut off)` : "";
  const warnings: [boolean, DataWarning][] = [
    [
      counts.askedLength > maxLength,
      {
        code: "data-context",
        message: `max_length is ${counts.askedLength}, the model sees ${maxLength} tokens: samples end there`,
      },
    ],
    [
      badRows > 0,
      {
        code: "data-skipped",
        message: `${badRows} of ${rows} rows are bad and left out: ${counts.firstFaults.join("; ")}`,
      },
    ],
    [
      cutRows > 0,
      {
        code: "data-cut",
        message: `${cutRows} of ${rows} rows are longer than ${maxLength} tokens; ${counts.cutTokens} tokens were cut off their ends`,
      },
    ],
    [
      untrainedRows > 0,
      {
        code: "data-untrained",
        message: `${untrainedRows} of ${rows} rows have no token to train and are left out${lost}`,
      },
    ],
    [
      counts.hiddenTools > 0,
      {
        code: "data-tools",
        message: `${counts.hiddenTools} of ${rows} rows have tools, or call them, and the model's chat template shows none: a turn that only calls is trained as an empty answer`,
      },
    ],
    [
      counts.usesDefaultTemplate,
      {
        code: "default-chat-template",
        message: "The model has no chat template: ChatML is used. Use the same for generation",
      },
    ],
  ];
  return warnings.flatMap(([applies, warning]) => (applies ? [warning] : []));
}
