package api

import "strconv"

// Authorized operations, as bit sets of Kafka's operation codes (KAFKA.md 10.2).
// Without an authorizer everyone may do everything that the resource has.
const (
	opRead = 1 << (iota + 3)
	opWrite
	opCreate
	opDelete
	opAlter
	opDescribe
	opClusterAction
	opDescribeConfigs
	opAlterConfigs
	opIdempotentWrite

	topicOperations   = opRead | opWrite | opCreate | opDelete | opAlter | opDescribe | opDescribeConfigs | opAlterConfigs
	clusterOperations = opCreate | opClusterAction | opDescribeConfigs | opAlterConfigs | opIdempotentWrite | opAlter | opDescribe
)

func itoa(n int32) string { return strconv.FormatInt(int64(n), 10) }
