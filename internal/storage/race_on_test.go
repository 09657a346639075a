//go:build race

package storage

// raceEnabled: the race detector makes sync.Pool forget things, so allocations
// say nothing.
const raceEnabled = true
