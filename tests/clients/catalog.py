"""The clients, with the versions that were tried and how each is made to talk to the service."""

from __future__ import annotations

from dataclasses import dataclass, field

from clients.environments import Environment


@dataclass(frozen=True, slots=True)
class Client:
    """One client.

    Attributes:
        name: In the table.
        packages: What is installed, the client itself first; none for what the system has.
        tries: What its script does, in words.
        script: Beside this file or under `scripts/`; gets the service's address and a model.
        command: In the place of a script: a command of the packages and its arguments, where
            `{url}` and `{model}` stand for the address and the model, and `{folder}` for an empty
            folder.
        environment: Of the process, likewise.
        node: From npm, else from PyPI.
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
        return Environment.of(self.packages, node=self.node)


OPENAI = ("openai==3.57.0",)
LITELLM = ("litellm==1.110.2",)
LANGGRAPH = ("langgraph==1.2.24", "langchain-openai==1.7.4", "langchain-anthropic==1.7.10")
VERCEL = ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/anthropic@3.0.140", "zod@4.6.7")
CLIENTS = (
    Client("curl", (), "answer, stream", "with_curl.sh"),
    Client(
        "openai (Python)",
        OPENAI,
        "answers with weights, stream with usage, plain completion, models",
        "with_openai.py",
    ),
    Client(
        "openai tools",
        OPENAI,
        "chat: whole, streamed, a forced call and its result, an alias, an error",
        "scripts/openai_chat.py",
    ),
    Client(
        "openai responses",
        OPENAI,
        "whole, events, a forced call, previous_response_id, an error",
        "scripts/openai_responses.py",
    ),
    Client(
        "openai (Node)",
        ("openai@7.57.0",),
        "answer with weights, stream",
        "with_openai.mjs",
        node=True,
    ),
    Client(
        "anthropic",
        ("anthropic==2.14.0",),
        "whole, events, a forced call and its result, count_tokens, an error",
        "scripts/anthropic_messages.py",
    ),
    Client(
        "OpenAI Agents SDK",
        ("openai-agents==0.24.0",),
        "tool loops of ten turns over responses, whole and streamed, and over chat",
        "scripts/agents_sdk.py",
    ),
    Client(
        "Vercel AI SDK",
        VERCEL,
        "text, stream and a tool loop of four turns over chat, responses and messages",
        "scripts/vercel.mjs",
        node=True,
    ),
    Client(
        "LangChain's ChatOpenAI",
        LANGGRAPH,
        "answer with weights, stream",
        "with_langchain.py",
    ),
    Client(
        "LangGraph",
        LANGGRAPH,
        "a tool loop of four turns over chat and over messages, a stream",
        "scripts/langgraph_agent.py",
    ),
    Client(
        "Pydantic AI",
        ("pydantic-ai-slim[openai,anthropic]==2.68.0",),
        "a typed output and a stream over chat, responses and messages",
        "scripts/pydantic_ai_agent.py",
    ),
    Client("LiteLLM", LITELLM, "answer with weights, stream", "with_litellm.py"),
    Client(
        "LiteLLM tools",
        LITELLM,
        "as OpenAI's and as Anthropic's provider: whole, streamed, a forced call; responses",
        "scripts/litellm_calls.py",
    ),
    Client("llm", ("llm==0.36",), "answer, stream", "with_llm.sh"),
    Client(
        "lm-eval",
        ("lm-eval[api]==0.4.13",),
        "a local task through `local-chat-completions`",
        "with_lm_eval.sh",
    ),
    Client("guidellm", ("guidellm==0.8.1",), "load by two clients", "with_guidellm.sh"),
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
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "512",
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
