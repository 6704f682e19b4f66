"""Every word on the page, in the three languages that it speaks."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cierzo.engines.base import EngineInfo
    from cierzo.messages import Finish, Phase
    from cierzo.page.turn import View

Words = dict[str, str]

ENGLISH: Words = {
    "tagline": "A chat with Mistral models, on this machine.",
    "notice_demo": (
        "**{model}** is answering: a very small model that comes with Cierzo. It knows about itself, Mistral models "
        "and this program, and little else. For Mistral 7B: `cierzo models pull mistral-7b`, "
        "then `cierzo --model mistral-7b`."
    ),
    "notice_model": "**{model}** is answering, on this machine. What you write stays here.",
    "notice_scripted": "A script is answering, not a model: every word was written beforehand.",
    "conversation": "Conversation",
    "greeting": "Ask something, or begin with one of these.",
    "message": "Message",
    "write": "Write a message…",
    "settings": "How it answers",
    "system": "System prompt",
    "system_info": "What the model should know or be before the first message",
    "temperature": "Temperature",
    "temperature_info": "Higher values produce more diverse outputs; 0 always takes the most probable token",
    "max_new_tokens": "Max new tokens",
    "max_new_tokens_info": "The maximum number of new tokens",
    "top_p": "Top-p (nucleus sampling)",
    "top_p_info": "Higher values sample more low-probability tokens",
    "repetition_penalty": "Repetition penalty",
    "repetition_penalty_info": "Penalize repeated tokens; 1 is off",
    "beginning": "Beginning · {seconds} s",
    "queued": "Waiting for a free place · {seconds} s",
    "queued_at": "Waiting for a free place · number {done} in the queue · {seconds} s",
    "loading": "Loading the model · {seconds} s",
    "loading_of": "Loading the model · {done} % · {seconds} s",
    "reading": "Reading the conversation · {seconds} s",
    "reading_of": "Reading the conversation · {done} of {total} tokens · {seconds} s",
    "writing": "Writing · {tokens} · {seconds} s",
    "ended": "{tokens} · {seconds} s",
    "ended_rate": "{tokens} · {seconds} s · {rate} tokens/s",
    "length": "Cut off after {tokens}: “Max new tokens” or the model's window was reached.",
    "stopped": "Stopped after {tokens}.",
    "empty": "The model ended its answer without a word: ask again, or in other words.",
    "dropped": "The model's window is full: the first {dropped} messages of this conversation were left out.",
    "failed": "No answer: {error}.",
    "broke_off": "The answer broke off: {error}.",
}

SPANISH: Words = {
    "tagline": "Una charla con modelos Mistral, en esta máquina.",
    "notice_demo": (
        "Responde **{model}**, un modelo muy pequeño que viene con Cierzo. Sabe de sí mismo, de los modelos Mistral y "
        "de este programa, y poco más. Para tener Mistral 7B: `cierzo models pull mistral-7b` "
        "y luego `cierzo --model mistral-7b`."
    ),
    "notice_model": "Responde **{model}**, en esta máquina. Lo que escribes se queda aquí.",
    "notice_scripted": "Responde un guion, no un modelo: cada palabra estaba escrita de antemano.",
    "conversation": "Conversación",
    "greeting": "Pregunta algo, o empieza por una de estas.",
    "message": "Mensaje",
    "write": "Escribe un mensaje…",
    "settings": "Cómo responde",
    "system": "Instrucciones del sistema",
    "system_info": "Lo que el modelo debe saber o ser antes del primer mensaje",
    "temperature": "Temperatura",
    "temperature_info": "Con valores altos responde más variado; con 0 toma siempre el token más probable",
    "max_new_tokens": "Máximo de tokens nuevos",
    "max_new_tokens_info": "Cuántos tokens puede tener la respuesta",
    "top_p": "Top-p (muestreo por núcleo)",
    "top_p_info": "Con valores altos entran más tokens poco probables",
    "repetition_penalty": "Penalización por repetición",
    "repetition_penalty_info": "Penaliza los tokens repetidos; 1 la apaga",
    "beginning": "Empezando · {seconds} s",
    "queued": "Esperando un sitio libre · {seconds} s",
    "queued_at": "Esperando un sitio libre · número {done} en la cola · {seconds} s",
    "loading": "Cargando el modelo · {seconds} s",
    "loading_of": "Cargando el modelo · {done} % · {seconds} s",
    "reading": "Leyendo la conversación · {seconds} s",
    "reading_of": "Leyendo la conversación · {done} de {total} tokens · {seconds} s",
    "writing": "Escribiendo · {tokens} · {seconds} s",
    "ended": "{tokens} · {seconds} s",
    "ended_rate": "{tokens} · {seconds} s · {rate} tokens/s",
    "length": "Cortada tras {tokens}: se alcanzó el «Máximo de tokens nuevos» o la ventana del modelo.",
    "stopped": "Detenida tras {tokens}.",
    "empty": "El modelo terminó sin decir nada: pregunta otra vez, o de otro modo.",
    "dropped": (
        "La ventana del modelo está llena: los {dropped} primeros mensajes de esta conversación han quedado fuera."
    ),
    "failed": "Sin respuesta: {error}.",
    "broke_off": "La respuesta se ha cortado: {error}.",
}

FRENCH: Words = {
    "tagline": "Une conversation avec les modèles Mistral, sur cette machine.",
    "notice_demo": (
        "**{model}** répond : un très petit modèle livré avec Cierzo. Il connaît sa propre fiche, les modèles Mistral "
        "et ce programme, et guère plus. Pour avoir Mistral 7B : `cierzo models pull mistral-7b`, "
        "puis `cierzo --model mistral-7b`."
    ),
    "notice_model": "**{model}** répond, sur cette machine. Ce que vous écrivez reste ici.",
    "notice_scripted": "Un script répond, pas un modèle : chaque mot était écrit d'avance.",
    "conversation": "Conversation",
    "greeting": "Posez une question, ou commencez par l'une de celles-ci.",
    "message": "Message",
    "write": "Écrivez un message…",
    "settings": "Comment il répond",
    "system": "Instructions du système",
    "system_info": "Ce que le modèle doit savoir ou être avant le premier message",
    "temperature": "Température",
    "temperature_info": "Des valeurs hautes varient les réponses ; 0 prend toujours le token le plus probable",
    "max_new_tokens": "Nombre maximal de nouveaux tokens",
    "max_new_tokens_info": "Combien de tokens la réponse peut avoir",
    "top_p": "Top-p (échantillonnage par noyau)",
    "top_p_info": "Des valeurs hautes laissent entrer plus de tokens peu probables",
    "repetition_penalty": "Pénalité de répétition",
    "repetition_penalty_info": "Pénalise les tokens répétés ; 1 la désactive",
    "beginning": "Démarrage · {seconds} s",
    "queued": "En attente d'une place libre · {seconds} s",
    "queued_at": "En attente d'une place libre · numéro {done} dans la file · {seconds} s",
    "loading": "Chargement du modèle · {seconds} s",
    "loading_of": "Chargement du modèle · {done} % · {seconds} s",
    "reading": "Lecture de la conversation · {seconds} s",
    "reading_of": "Lecture de la conversation · {done} sur {total} tokens · {seconds} s",
    "writing": "Écriture · {tokens} · {seconds} s",
    "ended": "{tokens} · {seconds} s",
    "ended_rate": "{tokens} · {seconds} s · {rate} tokens/s",
    "length": ("Coupée après {tokens} : le « nombre maximal de nouveaux tokens » ou la fenêtre du modèle est atteint."),
    "stopped": "Arrêtée après {tokens}.",
    "empty": "Le modèle a terminé sans un mot : demandez encore, ou autrement.",
    "dropped": (
        "La fenêtre du modèle est pleine : les {dropped} premiers messages de la conversation ont été laissés de côté."
    ),
    "failed": "Pas de réponse : {error}.",
    "broke_off": "La réponse s'est interrompue : {error}.",
}

LANGUAGES: dict[str, Words] = {"en": ENGLISH, "es": SPANISH, "fr": FRENCH}

EXAMPLES: dict[str, tuple[str, ...]] = {
    "en": ("Who are you?", "What is your favourite ingredient?", "What is a token?", "How do I get Mistral 7B?"),
    "es": ("¿Quién eres?", "¿Cuál es tu ingrediente favorito?", "¿Qué es un token?", "¿Cómo consigo Mistral 7B?"),
    "fr": (
        "Qui es-tu ?",
        "Quel est ton ingrédient préféré ?",
        "Qu'est-ce qu'un token ?",
        "Comment obtenir Mistral 7B ?",
    ),
}


def language(accepted: str) -> str:
    """Choose one of `LANGUAGES` for a browser's ``Accept-Language``, English where it names none of them.

    Example:
        >>> language("pt-BR,pt;q=0.9,es-AR;q=0.8,en;q=0.7")
        'es'
    """
    wishes = []
    for place, entry in enumerate(accepted.split(",")[:50]):
        tag, _, quality = entry.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            weight = 0.0
        wishes.append((-weight, place, tag.split("-")[0].lower()))
    return next((tag for weight, _, tag in sorted(wishes) if tag in LANGUAGES and weight < 0), "en")


def notice(info: EngineInfo) -> dict[str, str]:
    """Say, for each language, what is answering."""
    if info.engine == "scripted":
        key = "notice_scripted"
    else:
        key = "notice_demo" if info.model == "cierzo-demo" else "notice_model"
    return {name: words[key].format(model=PurePath(info.model).name) for name, words in LANGUAGES.items()}


def status(view: View, words: Words) -> str:
    """Put a view into one line, and a second one where earlier messages were dropped."""
    line = words[_key(view)].format(
        seconds=f"{view.seconds:.1f}",
        tokens="1 token" if view.tokens == 1 else f"{view.tokens} tokens",  # so in all three languages
        done=view.phase.done if view.phase else 0,
        total=view.phase.total if view.phase else 0,
        rate=f"{_rate(view):.0f}",
        error=str(view.error).rstrip("."),
    )
    return f"{line}\n{words['dropped'].format(dropped=view.dropped)}" if view.dropped else line


def _key(view: View) -> str:
    if view.error:
        return "broke_off" if view.text else "failed"
    if view.stopped:
        return "stopped"
    if view.finish:
        return _end_key(view, view.finish)
    return "writing" if view.tokens else _phase_key(view.phase)


def _end_key(view: View, finish: Finish) -> str:
    if not view.text:
        return "empty"
    if finish.reason == "length":
        return "length"
    return "ended_rate" if _rate(view) else "ended"


def _phase_key(phase: Phase | None) -> str:
    if phase is None:
        return "beginning"
    if phase.name == "reading":
        return "reading_of" if phase.total else "reading"
    suffix = {"queued": "_at", "loading": "_of"}[phase.name]
    return phase.name + suffix if phase.done else phase.name


def _rate(view: View) -> float:
    """Tokens a second while it wrote: what came after the first, over the time from the first to the last."""
    decode = view.finish.timings.decode if view.finish else 0.0
    return (view.tokens - 1) / decode if decode > 0 and view.tokens > 1 else 0.0
