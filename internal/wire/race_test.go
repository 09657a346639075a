//go:build race

package wire

// raceEnabled: sync.Pool drops buffers at random under the race detector.
const raceEnabled = true
