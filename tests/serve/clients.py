"""Drives every endpoint with the official clients of OpenAI, Anthropic and Ollama, whose types refuse
wrong shapes. Takes the address of a server that serves calf."""

import json
import sys

import anthropic
import ollama
import openai

BASE = sys.argv[1]
ASK = [{"role": "user", "content": "How many r's are in strawberry?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}},
    "required": ["city"],
    "additionalProperties": False,
}
# The client of Anthropic no longer has the parameter, though the endpoint takes it.
GREEDY = {"extra_body": {"temperature": 0}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


def with_openai():
    client = openai.OpenAI(base_url=BASE + "/v1", api_key="none", _strict_response_validation=True)
    assert [model.id for model in client.models.list()] == ["calf"]
    assert client.models.retrieve("calf").id == "calf"
    whole = client.chat.completions.create(model="calf", messages=ASK, temperature=0, max_tokens=200)
    assert "3" in whole.choices[0].message.content, whole
    stream = client.chat.completions.create(
        model="calf", messages=ASK, temperature=0, max_tokens=200, stream=True,
        stream_options={"include_usage": True}, logprobs=True, top_logprobs=2)
    text, usage = "", None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    assert text == whole.choices[0].message.content and usage.completion_tokens > 0
    called = client.chat.completions.create(
        model="calf", messages=ASK, tools=[TOOL], tool_choice="required", max_tokens=300,
        temperature=0, parallel_tool_calls=False)
    call = called.choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and "city" in json.loads(call.function.arguments)
    formatted = client.chat.completions.create(
        model="calf", messages=ASK, max_tokens=300, temperature=0,
        response_format={"type": "json_schema",
                         "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}})
    assert "city" in json.loads(formatted.choices[0].message.content), formatted
    raw = client.completions.create(model="calf", prompt="12 + 30 =", max_tokens=4, logprobs=1)
    assert raw.choices[0].text and raw.choices[0].logprobs.tokens
    # OpenAI sends `finish_reason: null` until the last part, which its own client's types do not allow.
    lenient = openai.OpenAI(base_url=BASE + "/v1", api_key="none")
    parts = list(lenient.completions.create(model="calf", prompt=[1, 2], max_tokens=4, stream=True))
    reasons = [choice.finish_reason for part in parts for choice in part.choices]
    assert reasons[-1] and not any(reasons[:-1]), reasons
    response = client.responses.create(model="calf", input=ASK[0]["content"], temperature=0)
    assert "3" in response.output_text, response
    kinds = [event.type for event in client.responses.create(
        model="calf", input=ASK[0]["content"], stream=True, max_output_tokens=20)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.incomplete", kinds
    called = client.responses.create(
        model="calf", input=ASK[0]["content"], temperature=0, max_output_tokens=300,
        tools=[{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}],
        tool_choice="required", parallel_tool_calls=False)
    call = called.output[-1]
    assert call.type == "function_call" and "city" in json.loads(call.arguments), called
    for wrong, call in [
        (openai.BadRequestError, lambda: client.chat.completions.create(model="calf", messages=[])),
        (openai.NotFoundError, lambda: client.models.retrieve("other")),
        (openai.BadRequestError, lambda: client.embeddings.create(model="calf", input="x")),
    ]:
        try:
            call()
        except wrong:
            continue
        raise AssertionError(wrong)


def with_anthropic():
    client = anthropic.Anthropic(base_url=BASE, api_key="none", _strict_response_validation=True)
    whole = client.messages.create(model="calf", messages=ASK, max_tokens=200, **GREEDY)
    assert [block.type for block in whole.content] == ["thinking", "text"], whole
    with client.messages.stream(model="calf", messages=ASK, max_tokens=200, **GREEDY) as stream:
        final = stream.get_final_message()
    assert final.content[-1].text == whole.content[-1].text
    assert client.messages.count_tokens(model="calf", messages=ASK).input_tokens > 5
    tool = {"name": "weather", "input_schema": SCHEMA}
    called = client.messages.create(model="calf", messages=ASK, max_tokens=300, **GREEDY,
                                    tools=[tool], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert called.stop_reason == "tool_use" and called.content[-1].name == "weather", called
    try:
        client.messages.create(model="calf", messages=[], max_tokens=5)
    except anthropic.BadRequestError:
        return
    raise AssertionError("messages may not be empty")


def with_ollama():
    client = ollama.Client(host=BASE)
    assert {model.model for model in client.list().models} == {"calf", "small:latest"}
    assert client.copy("small", "mine").status == "success"
    assert client.delete("mine").status == "success"
    for ask, status in [(lambda: client.delete("mine"), 404), (lambda: client.copy("no", "x"), 404),
                        (lambda: client.pull("library"), 400),
                        (lambda: list(client.pull("library", stream=True)), -1)]:
        try:
            ask()
        except ollama.ResponseError as error:
            assert error.status_code == status, error
        else:
            raise AssertionError(status)
    assert client.show("calf").modelinfo["general.architecture"] == "deepseek2"
    assert client.ps().models[0].model == "calf"
    options = {"temperature": 0, "num_predict": 200}
    whole = client.chat(model="calf", messages=ASK, options=options)
    assert "3" in whole.message.content and whole.message.thinking, whole
    text = "".join(part.message.content or ""
                   for part in client.chat(model="calf", messages=ASK, options=options, stream=True))
    assert text == whole.message.content
    assert "3" in client.generate(model="calf", prompt=ASK[0]["content"], options=options).response
    called = client.chat(model="calf", messages=ASK, format=SCHEMA, options=options, think=False)
    assert "city" in json.loads(called.message.content), called
    try:
        client.chat(model="other", messages=ASK)
    except ollama.ResponseError as error:
        assert error.status_code == 404
        return
    raise AssertionError("another model is not here")


with_openai()
with_anthropic()
with_ollama()
print("the clients of OpenAI, Anthropic and Ollama are content")
