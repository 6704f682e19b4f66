"""What the terminal says by itself, in English and in Spanish. Errors stay English: they are searched for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from cierzo.templates import is_of_file

if TYPE_CHECKING:
    from collections.abc import Mapping

Language = Literal["en", "es"]

TEXTS: dict[Language, dict[str, str]] = {
    "en": {
        "waiting": "waiting for the model",
        "queued": "waiting for a free place",
        "queued_at": "waiting for a free place, number {done} in the queue",
        "loading": "loading the model",
        "loading_at": "loading the model, {done} %",
        "reading": "reading the prompt",
        "reading_at": "reading the prompt, {done} of {total} tokens",
        "stdin": "reading standard input (end it with Ctrl+D)",
        "cut": "(cut at {count} tokens: raise --max-new-tokens for more)",
        "cut_here": "(cut at {count} tokens: /continue goes on)",
        "window": "(the model's window is full)",
        "stopped": "[stopped]",
        "dropped": "(the window is full: the oldest {count} messages were left out)",
        "look_alike": "what looks like a control token in your text is plain text to the model: {names}",
        "summary": "{count} tokens, template {template}, {room} left for an answer",
        "hello": "{model} · template {template} · {context} tokens · /help",
        "of_file": "of the file, not verified",
        "bye": "leave with Ctrl+D or /quit",
        "kept": "kept as {id}: cierzo chat --continue {id}",
        "going_on": "{title} · {count} messages",
        "was_cut": "the last answer was cut ({reason}): /continue goes on with it, /retry makes another",
        "unanswered": "the last question has no answer: /retry asks it again",
        "elsewhere": "another program is writing the last answer, or was ended while it did",
        "earlier": "… earlier messages: {count}",
        "not_saved": "this conversation will not be kept",
        "no_history": "what you type is not kept for the next time: {why}",
        "no_answer": "there is no answer yet",
        "no_question": "there is no question yet",
        "by_messages": "the engine took the messages and made the prompt itself: its tokens are not known",
        "undone": "back to before the last question; it is kept, and the next one stands beside it",
        "cleared": "the next question begins a new conversation; this one is kept",
        "whole": "this answer is complete: /retry makes another one",
        "system_is": "system prompt: {text}",
        "system_none": "no system prompt",
        "title_is": "title: {title}",
        "changing": "changing to {name}",
        "unknown": "there is no {command}: {hint}",
        "perhaps": "did you mean {names}?",
        "try_help": "/help shows what there is",
        "failed_hint": "the question is kept: /retry asks again, /continue goes on from here, /undo goes back",
        "last": "last answer: {tokens} tokens, {rate}, first token after {first}, ended with {reason}",
        "ended_with": "last answer: ended with {reason}",
        "last_prompt": "its prompt: {tokens} tokens, of which {cached} were in the cache",
        "rate": "{rate:.1f} tokens/s",
        "no_rate": "speed not known",
        "legend": "probability that the model itself gave, before temperature and top-p",
        "not_reported": "this engine reports no probabilities",
        "mean": "{count} tokens; on average {mean} each (perplexity {perplexity})",
        "token": "token",
        "probability": "probability",
        "instead": "what else it might have said",
        "help_system": "[TEXT]  show or set the system prompt; - removes it",
        "help_set": "[NAME VALUE]  show or set a sampling value, such as temperature 0.5",
        "help_show": "settings, and figures of the last answer",
        "help_model": "[NAME]  show or change the model that answers",
        "help_engine": "[ADDRESS]  show or change the engine that answers",
        "help_retry": "another answer to the last question, beside the others",
        "help_continue": "go on with an answer that was cut",
        "help_undo": "go back to before the last question; nothing is deleted",
        "help_title": "[TEXT]  show or set the conversation's title",
        "help_tokens": "the last answer with every token's probability",
        "help_prompt": "exactly what the model was given last",
        "help_clear": "begin a new conversation; this one is kept",
        "help_help": "this",
        "help_quit": "leave (also Ctrl+D)",
        "help_keys": "Enter sends · Alt+Enter or \\ before Enter: new line · Ctrl+C stops the answer · ↑ ↓ history",
    },
    "es": {
        "waiting": "esperando al modelo",
        "queued": "esperando un sitio libre",
        "queued_at": "esperando un sitio libre, número {done} de la cola",
        "loading": "cargando el modelo",
        "loading_at": "cargando el modelo, {done} %",
        "reading": "leyendo el prompt",
        "reading_at": "leyendo el prompt, {done} de {total} tokens",
        "stdin": "leyendo la entrada estándar (termínala con Ctrl+D)",
        "cut": "(cortado a los {count} tokens: sube --max-new-tokens para tener más)",
        "cut_here": "(cortado a los {count} tokens: /continue sigue)",
        "window": "(la ventana del modelo está llena)",
        "stopped": "[detenido]",
        "dropped": "(la ventana está llena: los {count} mensajes más antiguos se han quedado fuera)",
        "look_alike": "lo que en tu texto parece un token de control es texto corriente para el modelo: {names}",
        "summary": "{count} tokens, plantilla {template}, quedan {room} para una respuesta",
        "hello": "{model} · plantilla {template} · {context} tokens · /help",
        "of_file": "del archivo, sin verificar",
        "bye": "se sale con Ctrl+D o /quit",
        "kept": "guardada como {id}: cierzo chat --continue {id}",
        "going_on": "{title} · {count} mensajes",
        "was_cut": "la última respuesta quedó cortada ({reason}): /continue sigue con ella, /retry hace otra",
        "unanswered": "la última pregunta no tiene respuesta: /retry la repite",
        "elsewhere": "otro programa escribe la última respuesta, o acabó mientras lo hacía",
        "earlier": "… mensajes anteriores: {count}",
        "not_saved": "esta conversación no se guardará",
        "no_history": "lo que escribas no se guarda para la próxima vez: {why}",
        "no_answer": "todavía no hay ninguna respuesta",
        "no_question": "todavía no hay ninguna pregunta",
        "by_messages": "el motor recibió los mensajes e hizo él mismo el prompt: sus tokens no se conocen",
        "undone": "de vuelta a antes de la última pregunta; se conserva, y la próxima quedará a su lado",
        "cleared": "la próxima pregunta empieza otra conversación; esta se conserva",
        "whole": "esta respuesta está completa: /retry hace otra",
        "system_is": "prompt de sistema: {text}",
        "system_none": "sin prompt de sistema",
        "title_is": "título: {title}",
        "changing": "cambiando a {name}",
        "unknown": "no existe {command}: {hint}",
        "perhaps": "¿querías decir {names}?",
        "try_help": "/help muestra lo que hay",
        "failed_hint": "la pregunta se conserva: /retry la repite, /continue sigue desde aquí, /undo vuelve atrás",
        "last": "última respuesta: {tokens} tokens, {rate}, primer token a los {first}, terminó con {reason}",
        "ended_with": "última respuesta: terminó con {reason}",
        "last_prompt": "su prompt: {tokens} tokens, de los que {cached} estaban en la caché",
        "rate": "{rate:.1f} tokens/s",
        "no_rate": "velocidad desconocida",
        "legend": "probabilidad que dio el propio modelo, antes de temperature y top-p",
        "not_reported": "este motor no da probabilidades",
        "mean": "{count} tokens; de media {mean} cada uno (perplejidad {perplexity})",
        "token": "token",
        "probability": "probabilidad",
        "instead": "qué otra cosa podría haber dicho",
        "help_system": "[TEXTO]  muestra o cambia el prompt de sistema; - lo quita",
        "help_set": "[NOMBRE VALOR]  muestra o cambia un valor de muestreo, como temperature 0.5",
        "help_show": "ajustes, y cifras de la última respuesta",
        "help_model": "[NOMBRE]  muestra o cambia el modelo que responde",
        "help_engine": "[DIRECCIÓN]  muestra o cambia el motor que responde",
        "help_retry": "otra respuesta a la última pregunta, junto a las demás",
        "help_continue": "sigue con una respuesta cortada",
        "help_undo": "vuelve a antes de la última pregunta; no se borra nada",
        "help_title": "[TEXTO]  muestra o cambia el título de la conversación",
        "help_tokens": "la última respuesta con la probabilidad de cada token",
        "help_prompt": "exactamente lo último que recibió el modelo",
        "help_clear": "empieza otra conversación; esta se conserva",
        "help_help": "esto",
        "help_quit": "salir (también Ctrl+D)",
        "help_keys": "Intro envía · Alt+Intro o \\ antes de Intro: otra línea · Ctrl+C detiene · ↑ ↓ historial",
    },
}


def language(environ: Mapping[str, str] | None = None) -> Language:
    """Return the language of whoever sits at the terminal, as ``LC_ALL``, ``LC_MESSAGES`` or ``LANG`` say."""
    names = os.environ if environ is None else environ
    said = next((names[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if names.get(name)), "")
    return "es" if said.lower().split(".")[0].split("_")[0] == "es" else "en"


def say(key: str, **values: object) -> str:
    """Return one of `TEXTS` in the language of the terminal, with its values put in."""
    return TEXTS[language()][key].format(**values)


def template_named(name: str) -> str:
    """Return a template's name as people read it."""
    return say("of_file") if is_of_file(name) else name
