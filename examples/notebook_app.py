"""La app del cuaderno «Building Chatbot app using Mistral 7b», sobre Cierzo.

Sigue al cuaderno línea por línea mientras vale; donde se aparta, el comentario dice por qué. En vez del servidor de
Hugging Face responde un modelo en esta máquina: sin cuenta, sin red y sin descargar nada.

    python examples/notebook_app.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

import cierzo

# El cuaderno: client = InferenceClient("mistralai/Mistral-7B-Instruct-v0.1")
# Sin nombre responde el modelo de demostración que viene con Cierzo. Para el del cuaderno, una sola vez
# `cierzo models pull mistral-7b-v0.1`, y aquí cierzo.Client("mistral-7b-v0.1").
client = cierzo.Client()


# El cuaderno pegaba cadenas: "<s>", "[INST] … [/INST]", "</s> ". Eso tiene tres fallos: los espacios no son los del
# entrenamiento, quien escriba «[/INST]» se sale de su turno, y una charla larga no cabe. Aquí la conversación va
# como mensajes, y Cierzo hace los tokens exactos de la plantilla del modelo. (La función del cuaderno, tal cual,
# está en cierzo.prompt.format_prompt.)
def format_prompt(message: str, history: list[dict[str, Any]]) -> list[cierzo.Message]:
    """Devuelve la conversación entera, con la pregunta al final."""
    messages = []
    # Desde Gradio 5 el historial no son parejas (pregunta, respuesta) sino diccionarios con "role" y "content",
    # y el contenido es un texto o una lista de partes.
    for turn in history:
        content = turn["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        messages.append(cierzo.Message(turn["role"], text))
    return [*messages, cierzo.Message("user", message)]


# Esta función genera la respuesta del chatbot teniendo en cuenta el mensaje actual,
# el historial de conversación, y varios parámetros configurables.
def generate(  # noqa: PLR0917 (la firma es la del cuaderno)
    prompt: str,
    history: list[dict[str, Any]],
    temperature: float = 0.9,
    max_new_tokens: int = 256,
    top_p: float = 0.95,
    repetition_penalty: float = 1.0,
) -> Iterator[str]:
    """Va dando la respuesta, cada vez más larga."""
    # El cuaderno subía la temperatura a 0.01, porque su servidor rechaza el 0. Aquí 0 vale: toma siempre el token
    # más probable. Tampoco hace falta do_sample=True.
    generate_kwargs = {
        "temperature": float(temperature),
        "max_new_tokens": max_new_tokens,
        "top_p": float(top_p),
        "repetition_penalty": repetition_penalty,
        # Con la semilla fija del cuaderno, la misma pregunta con los mismos valores recibe la misma respuesta.
        # Sin esta línea, cada vez una distinta (y Finish.seed dice con cuál se hizo).
        "seed": 42,
    }

    # La función format_prompt prepara el mensaje actual teniendo en cuenta el historial de conversación.
    formatted_prompt = format_prompt(prompt, history)

    # Se utiliza client.stream para generar la respuesta del chatbot de forma incremental,
    # permitiendo procesarla o mostrarla mientras se crea. Antes de los tokens llegan fases (cargando, leyendo) y al
    # final un Finish; no hay return_full_text, porque la pregunta nunca viene con la respuesta.
    stream = client.stream(formatted_prompt, **generate_kwargs)
    output = ""

    # Se construye la respuesta completa a partir de los tokens generados incrementalmente. El botón de parar cierra
    # este generador, con él el del cliente, y con él el trabajo del modelo. Cada error es una frase que dice qué
    # hacer: con 0 tokens nuevos, por ejemplo, que hace falta al menos 1.
    try:
        for response in stream:
            if isinstance(response, cierzo.Token):
                output += response.text
                yield output
    except cierzo.CierzoError as error:
        raise gr.Error(str(error), print_exception=False) from None
    finally:
        stream.close()
    # El «return output» del cuaderno no hacía nada: lo que un generador devuelve, Gradio no lo ve.


# Se definen sliders interactivos para modificar los parámetros
additional_inputs = [
    gr.Slider(
        label="Temperature",
        value=0.9,
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        interactive=True,
        info="Higher values produce more diverse outputs",
    ),
    gr.Slider(
        label="Max new tokens",
        value=256,
        minimum=0,
        maximum=8192,
        step=64,
        interactive=True,
        info="The maximum numbers of new tokens",
    ),
    gr.Slider(
        label="Top-p (nucleus sampling)",
        value=0.90,
        minimum=0.0,
        maximum=1,
        step=0.05,
        interactive=True,
        info="Higher values sample more low-probability tokens",
    ),
    gr.Slider(
        label="Repetition penalty",
        value=1.2,
        minimum=1.0,
        maximum=2.0,
        step=0.05,
        interactive=True,
        info="Penalize repeated tokens",
    ),
]

# Se crea la interfaz de la app. Sin analytics_enabled=False, Gradio contaría a su casa que se ha abierto.
with gr.Blocks(analytics_enabled=False) as demo:
    gr.ChatInterface(
        generate,
        additional_inputs=additional_inputs,
        analytics_enabled=False,
    )

# Ejecución de la app. Gradio atiende de una en una si no se le dice otra cosa; con None, a varias personas a la vez
# (Cierzo reparte los sitios del modelo).
if __name__ == "__main__":
    demo.queue(default_concurrency_limit=None).launch()
    client.close()
