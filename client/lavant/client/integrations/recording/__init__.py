"""Shared parts of all integrations: steps, messages, tool calls and usage of an agent as events of a run.

How to add a framework:

1. Add `lavant/client/integrations/<framework>/__init__.py` with the one public class, and an extra of the framework's
   name in `pyproject.toml`. Import the framework within `with extra("<framework>"):`.
2. Use the constructor arguments of the others (`client`, `name`, `labels`, `producer_timeout`, `on_error`,
   `options`), and keep the last four as `runs.RunOptions`: `check_client(...).runs.start(name, **options)` makes the
   run. `runs.guarded_run` starts and ends it around a block; where there is no block, call its `begin` and `end`.
3. Translate each report of the framework into one call: `steps.StepRecorder` for steps and tools under the framework's
   own keys, `steps.ModelRequests` for requests to models, `messages.AnswerRecorder` for what a model answers,
   streamed or whole. Read values with `reading`, which never raises.
4. Enter `with guard:` around each translation. Never await between a report of the framework and its next step:
   everything here only queues.
5. A run that starts within another one's block (`scope.current_run()`) is a step of that run. Enter a scope for the
   code of a tool, so that agents in it become part of the tool's step.
6. CancelRun stops the work: `runs.CancelOnRequest`.
7. Add `tests/client/integrations/<framework>/` with the framework's own test model, on a real server: a run, text
   streamed, parallel tools of which one raises and one is cancelled, nested agents, cancellation of the task and of
   the run, no server. Add a function to `RUNS` in `test_unchanged.py`: same outcome with lavant and without.
8. Add it to `NEEDED` in `tests/client/integrations/test_extras.py`, to `INTEGRATIONS` in
   `tests/client/test_docstrings.py` with an offline model in `tests/support/offline.py`, and to `docs/`.

`openai_agents/recorder.py` is the shortest complete example.
"""
