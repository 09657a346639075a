# Ottla in a container: one static binary on an empty image.
#
#   docker build -t ottla . && docker run -p 9092:9092 -v ottla:/data ottla
#
# Clients outside reach it as localhost:9092; for another name, override advertised.listeners:
#   docker run … ottla serve --set log.dirs=/data --set advertised.listeners=PLAINTEXT://my.host:9092 …
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /ottla ./cmd/ottla && mkdir /data

FROM scratch
COPY --from=build /ottla /ottla
COPY --from=build /data /data
VOLUME /data
EXPOSE 9092 8080
ENTRYPOINT ["/ottla"]
CMD ["serve", "--set", "log.dirs=/data", "--set", "listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093", "--set", "advertised.listeners=PLAINTEXT://localhost:9092", "--set", "ottla.http.listener=0.0.0.0:8080"]
