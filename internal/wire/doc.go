// Package wire is Kafka's connections: frames, headers, order, back-pressure,
// limits and sendfile, over any net.Listener; and the client side of the same.
// It knows API keys and the headers' versions, and nothing of what is in a body.
package wire
