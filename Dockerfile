# An image of `vocable serve` that holds all models and downloads nothing when it starts:
#   docker build -t vocable . && docker run -p 8000:8000 -e VOCABLE_API_KEY=... -v voices:/voices vocable
FROM python:3.12-slim

RUN useradd --create-home vocable && mkdir /voices && chown vocable /voices
WORKDIR /vocable
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md CITATION.cff ./
COPY src src
COPY models/uslm models/uslm
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt \
    '.[serve,tts]' ./models/uslm

USER vocable
ENV HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
VOLUME /voices
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD \
    python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=3)"
# Without VOCABLE_API_KEY it ends at once: other machines need a key.
ENTRYPOINT ["vocable", "serve", "--host", "0.0.0.0", "--voices", "/voices"]
