"""A small corpus that nothing here was trained on, from packages of Debian: prompts of Asterisk, read by five people in five
languages (CC BY-SA 3.0), and the sounds of LinCity-NG's town (GPL-2+ or CC BY-SA 3.0).

    apt-get install asterisk-core-sounds-{en,es,fr,it,ru}-g722 lincity-ng-data ffmpeg
    python bench/outside.py OUT
    linnet eval MODEL --set OUT --codec pcm --condition clean,noise@10,noise@2 --metrics pesq_wb,estoi,dnsmos

Eight prompts of each voice, of 4 to 12 s; they were kept at 64 kbit/s, with a band of 7 kHz.
"""

import csv
import subprocess
from pathlib import Path

import click

VOICES = {
    "en_US_f_Allison": "en",
    "es_MX_f_Allison": "es",
    "fr_CA_f_June": "fr",
    "it_IT_m_Carlo": "it",
    "ru_RU_f_IvrvoiceRU": "ru",
}
NOISES = (
    "TraficHigh2", "TraficLow2", "SportsCroud1", "SportsCroud3", "MarketFull1", "MarketMed1", "IndustryHigh1", "IndustryHigh2",
    "Blacksmith3", "CoalMine2", "DirtTrack2", "Fire1", "Fire3", "Harbor2", "Mill3", "RailTrain2", "RailTrain3", "Recycle2",
    "Water1",
)  # fmt: skip
PROMPTS = 8
BYTES = (4 * 8000, 12 * 8000)  # of a prompt


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("/"), help="Of the packages."
)
def main(out: Path, root: Path) -> None:
    """Make the corpus OUT of the packages' files."""
    rows = []
    for voice, language in VOICES.items():
        prompts = sorted((root / "usr/share/asterisk/sounds" / voice).glob("*.g722"))
        fitting = [prompt for prompt in prompts if BYTES[0] <= prompt.stat().st_size <= BYTES[1]]
        if len(fitting) < PROMPTS:
            raise click.ClickException(f"only {len(fitting)} prompts of {voice}: install asterisk-core-sounds-{language}-g722")
        for number in range(PROMPTS):
            rows.append(("speech", fitting[number * len(fitting) // PROMPTS], voice, language))
    rows += [("noise", root / f"usr/share/games/lincity-ng/sounds/{name}.wav", "", "") for name in NOISES]
    if missing := next((source for _, source, *_ in rows if not source.exists()), None):
        raise click.ClickException(f"{missing} does not exist: install lincity-ng-data")
    for kind in ("speech", "noise"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    with open(out / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "kind", "split", "speaker", "language"))
        for kind, source, speaker, language in rows:
            path = f"{kind}/{'_'.join(filter(None, (language, source.stem)))}.wav"
            command = ["ffmpeg", "-v", "error", "-y", "-i", source, "-ar", "16000", "-ac", "1", out / path]
            subprocess.run(command, check=True)
            writer.writerow((path, kind, "test", speaker, language))


if __name__ == "__main__":
    main()
