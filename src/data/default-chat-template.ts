/**
 * ChatML, with tools in the manner of Hermes and Qwen: what a base model without a chat template is trained and
 * asked with. https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md
 */
export const DEFAULT_CHAT_TEMPLATE: string = [
  "{%- if tools %}",
  "{{- '<|im_start|>system\\n' }}",
  "{%- if messages and messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{% endif %}",
  "{{- '# Tools\\n\\nYou may call these functions:\\n<tools>' }}",
  "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{% endfor %}",
  '{{- \'\\n</tools>\\nAnswer with <tool_call>\\n{"name": …, "arguments": {…}}\\n</tool_call> to call one.\' }}',
  "{{- '<|im_end|>\\n' }}",
  "{%- endif %}",
  "{%- for message in messages %}",
  "{%- if not (tools and loop.first and message.role == 'system') %}",
  "{{- '<|im_start|>' + message.role + '\\n' }}",
  "{%- if message.role == 'assistant' %}{% generation %}",
  "{{- message.content }}",
  "{%- for call in message.tool_calls or [] %}",
  "{%- if message.content or not loop.first %}{{- '\\n' }}{% endif %}",
  '{{- \'<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}',
  "{{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}",
  "{%- endfor %}",
  "{{- '<|im_end|>' }}",
  "{%- endgeneration %}{{- '\\n' }}",
  "{%- else %}{{- message.content + '<|im_end|>\\n' }}{% endif %}",
  "{%- endif %}",
  "{%- endfor %}",
  "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}",
].join("\n");
