"""The clients, with the versions that were tried and how each is made to talk to the service."""

from __future__ import annotations

from dataclasses import dataclass, field

from clients.environments import Environment


@dataclass(frozen=True, slots=True)
class Client:
    """One client.

    Attributes:
        name: In the table.
        packages: What is installed, the client itself first.
        tries: What its script does, in words.
        script: Under `scripts/`; gets the service's address and a model.
        command: In the place of a script: a command of the packages and its arguments, where
            `{url}` and `{model}` stand for the address and the model, and `{folder}` for an empty
            folder.
        environment: Of the process, likewise.
        node: From npm, else from PyPI.
        version_of: The package whose version counts; the first one unless given.
        says: A part of the output that shows that it worked; for commands.
    """

    name: str
    packages: tuple[str, ...]
    tries: str
    script: str = ""
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    node: bool = False
    says: str = ""

    def installed(self) -> Environment:
        """Where it is installed, or will be."""
        key = self.name.lower().replace(" ", "-").replace("'", "").replace(",", "")
        return Environment.of(key, self.packages, node=self.node)


CLIENTS = (
    Client(
        "openai",
        ("openai==3.57.0",),
        "chat: whole, streamed, a forced call and its result, alias, an error",
        "openai_chat.py",
    ),
    Client(
        "openai, responses",
        ("openai==3.57.0",),
        "whole, events, a forced call, previous_response_id, an error",
        "openai_responses.py",
    ),
    Client(
        "anthropic",
        ("anthropic==2.14.0",),
        "whole, events, a forced call and its result, count_tokens, an error, x-api-key",
        "anthropic_messages.py",
    ),
    Client(
        "OpenAI Agents SDK",
        ("openai-agents==0.24.0",),
        "tool loops of ten turns over responses (whole, streamed) and chat",
        "agents_sdk.py",
    ),
    Client(
        "Vercel AI SDK",
        ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/anthropic@3.0.140", "zod@4.6.7"),
        "text, stream and a tool loop of four turns, over chat, responses and messages",
        "vercel.mjs",
        node=True,
    ),
    Client(
        "LangGraph",
        ("langgraph==1.2.24", "langchain-openai==1.7.4", "langchain-anthropic==1.7.10"),
        "a tool loop of four turns over chat and over messages, a stream",
        "langgraph_agent.py",
    ),
    Client(
        "Pydantic AI",
        ("pydantic-ai-slim[openai,anthropic]==2.68.0",),
        "a typed output and a stream over chat, responses and messages",
        "pydantic_ai_agent.py",
    ),
    Client(
        "LiteLLM",
        ("litellm==1.110.2",),
        "as OpenAI's and as Anthropic's provider: whole, streamed, a forced call; responses",
        "litellm_calls.py",
    ),
    Client(
        "llm",
        ("llm==0.36",),
        "a prompt, streamed, with the model from extra-openai-models.yaml",
        command=("llm", "-m", "served", "-o", "max_tokens", "8", "What is the weather in Oslo?"),
        environment={"LLM_USER_PATH": "{folder}"},
    ),
    Client(
        "lm-eval",
        ("lm-eval[api]==0.4.13",),
        "a task of generated answers over chat completions",
        "lm_eval_task.py",
    ),
    Client(
        "guidellm",
        ("guidellm==0.8.1",),
        "a benchmark of 8 requests over chat completions",
        command=(
            *("guidellm", "benchmark", "run", "--target", "{url}", "--model", "{model}"),
            *("--profile", "synchronous", "--max-requests", "8"),
            *("--data", "prompt_tokens=16,output_tokens=8", "--processor", "{tokenizer}"),
            *("--output-dir", "{folder}", "--outputs", "json", "--disable-console-interactive"),
        ),
    ),
    Client(
        "Claude Code",
        ("@anthropic-ai/claude-code@2.1.197",),
        "one prompt without a terminal, through /v1/messages",
        command=(
            *("claude", "-p", "Say hello.", "--model", "{model}", "--output-format", "json"),
            *("--max-turns", "1"),
        ),
        environment={
            "ANTHROPIC_BASE_URL": "{url}",
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "16",
            "DISABLE_AUTOUPDATER": "1",
            "HOME": "{folder}",
        },
        node=True,
        says='"subtype":"success"',
    ),
    Client(
        "Codex",
        ("@openai/codex@0.171.0",),
        "one prompt without a terminal, through /v1/responses",
        command=(
            *("codex", "exec", "--skip-git-repo-check", "--json", "-m", "{model}"),
            *("-c", 'model_provider="served"', "-c", 'web_search="disabled"'),
            *("-c", 'model_providers.served.name="served"'),
            *("-c", 'model_providers.served.base_url="{url}/v1"'),
            *("-c", 'model_providers.served.wire_api="responses"'),
            *("-c", 'model_providers.served.env_key="SERVED_KEY"'),
            "Say hello.",
        ),
        environment={"SERVED_KEY": "none", "HOME": "{folder}", "CODEX_HOME": "{folder}"},
        node=True,
        says='"type":"turn.completed"',
    ),
)
