"""Reading the configuration again while requests run (SIGHUP). What it promises:

* Providers, keys and the rules of dispatch change; everything else is named in the log as needing a restart.
* A provider whose settings did not change keeps its connections and its record. One that is gone gets no new request,
  and its running answers go on to their end.
* A configuration that cannot be used changes nothing, and the log says why.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from coterie.api.auth import KeyRing
from coterie.api.state import AppState
from coterie.config import ConfigError, ProviderSettings, Settings
from coterie.providers.base import Provider
from coterie.providers.http import HttpProvider, provider_from

_log = logging.getLogger(__name__)

LoadSettings = Callable[[], Settings]


async def reload(state: AppState, load: LoadSettings) -> None:
    """Take over what ``load`` gives. Raises nothing for a configuration that cannot be used."""
    try:
        settings = load()
        providers = _providers(state, settings)
    except ConfigError as error:
        for problem in error.problems:
            _log.error("the configuration was not read again: %s", problem)
        return
    state.keys = KeyRing(settings.server.api_keys)
    state.router.configure(settings.dispatch)
    await state.router.replace(providers)
    _log.info("the configuration was read again: providers %s", ", ".join(each.name for each in providers) or "none")
    for name in _unchanged_until_restart(state.settings, settings):
        _log.warning("'%s' has changed in the configuration; it takes a restart", name)


def _providers(state: AppState, settings: Settings) -> list[Provider]:
    kept = {provider.name: provider for provider in state.router.providers if isinstance(provider, HttpProvider)}
    own: list[Provider] = [provider for provider in state.router.providers if not isinstance(provider, HttpProvider)]
    return [*own, *(_provider(kept.get(each.name), each) for each in settings.providers)]


def _provider(present: HttpProvider | None, settings: ProviderSettings) -> HttpProvider:
    if present is not None and present.settings == settings and present.key == settings.key(os.environ):
        return present
    return provider_from(settings)


def _unchanged_until_restart(before: Settings, after: Settings) -> list[str]:
    fields = set(Settings.model_fields) - {"providers", "dispatch", "server"}
    changed = [name for name in sorted(fields) if getattr(before, name) != getattr(after, name)]
    keyless = [settings.server.model_copy(update={"api_keys": ()}) for settings in (before, after)]
    return changed if keyless[0] == keyless[1] else [*changed, "server"]
