"""From a source of conversations to the requests an engine is given: sites, prompts, draws, in reading order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from selfplay.config import PERSONA, SampleConfig, draws
from selfplay.core import Prompt, Site
from selfplay.engines.base import SampleRequest
from selfplay.errors import SelfplayError, TooManyBadRows
from selfplay.inputs.quarantine import Quarantine
from selfplay.prompting.templates import ChatTemplate

Planned = tuple[Site, SampleRequest]


def render(site: Site, config: SampleConfig, template: ChatTemplate | None, context: int | None) -> SampleRequest:
    """The request for a site; without a template (a chat-only engine) the prompt is empty.

    Raises:
        SelfplayError: The template rejects the messages, or prompt and completion exceed the context.
    """
    prompt = Prompt("", ())
    if template is not None:
        prompt = template.next_prompt(site.messages, system_at(site, config))
        length, room = len(prompt.token_ids), config.sampling.max_tokens
        if context is not None and length + room > context:
            raise SelfplayError(f"over the model's context: {length} prompt tokens + {room} to sample > {context}")
    return SampleRequest(site.site_id, prompt, draws(config, site.site_id), site.messages)


def system_at(site: Site, config: SampleConfig) -> str:
    """`config.system` for one site: with its own persona, where there are such."""
    if config.persona is None:
        return config.system
    return config.system.replace(PERSONA, str(site.conversation.extra[config.persona]))


def grouped(sites: Iterable[Site], size: int) -> Iterator[list[Site]]:
    """Sites whose ordinals have the same quotient by `size`. Each group is given as soon as it is complete."""
    group: list[Site] = []
    try:
        for site in sites:
            if group and site.ordinal // size != group[0].ordinal // size:
                yield group
                group = []
            group.append(site)
            if (site.ordinal + 1) % size == 0:
                yield group
                group = []
    except TooManyBadRows:
        if group:
            yield group  # what was read is worth finishing
        raise
    if group:
        yield group


def plan(
    sites: Iterable[Site],
    config: SampleConfig,
    template: ChatTemplate | None,
    context: int | None,
    quarantine: Quarantine,
    group: int = 1,
    done: Callable[[Site], bool] = lambda site: False,
) -> Iterator[list[Planned]]:
    """Groups of requests still to be sampled, cut by ordinal, whatever is already done.

    A group with anything missing is given whole: an engine that batches a group must see the same batch again to
    repeat the same draws. Sites that cannot be rendered go to quarantine and count as done.
    """
    for whole in grouped(sites, group):
        rendered: dict[str, SampleRequest] = {}
        for site in whole:
            if not done(site):
                try:
                    rendered[site.site_id] = render(site, config, template, context)
                except SelfplayError as error:
                    quarantine.add(site.conversation.origin, str(error), None, site_id=site.site_id)
        if not rendered:
            continue
        for site in whole:
            if done(site):
                rendered[site.site_id] = render(site, config, template, context)
        yield [(site, rendered[site.site_id]) for site in whole if site.site_id in rendered]
