package api

import "github.com/twmb/franz-go/pkg/kmsg"

// lastKey is the highest API key of Kafka 4.4.
const lastKey = 94

type listener int8

const (
	onBroker listener = 1 << iota
	onController
)

// entry is one API of Kafka 4.4: offered, or refused with the reason.
type entry struct {
	key      kmsg.Key
	min, max int16    // versions that Kafka 4.4 accepts (KAFKA.md 2)
	on       listener // where this node offers it
	serve    func(call)
	raw      bool   // decodes the body by itself, in place
	wait     bool   // may block: own goroutine, next request waits
	keeps    bool   // waits long or keeps bytes of the body: it gets a copy
	refused  string // why serve is nil
}

// Reasons for what is not offered.
const (
	noGroups   = "needs the consumer protocol of groups (KIP-848), which is not there yet"
	noTxns     = "needs the transaction coordinator, which is not there yet"
	noShare    = "needs share groups, which are not there yet"
	noStreams  = "needs streams groups, which are not there yet"
	noSecurity = "needs security, which is not there yet"
	noAdmin    = "administration beyond topics is not there yet"
	noCluster  = "needs more than one node, which is not there yet"
	noRaft     = "Ottla's controllers agree through a Raft protocol of their own"
	inProcess  = "between broker and controller of one process only, not on a socket yet"
	removed    = "removed in Kafka 4.0"
	noPlugin   = "only with a client telemetry receiver, which Kafka's broker has not by itself"
)

// entries is the whole protocol surface; a test demands that every key stands
// here. Read it top to bottom to know what a node answers.
var entries = []entry{
	{key: kmsg.Produce, min: 3, max: 13, on: onBroker, serve: call.produce, raw: true},
	{key: kmsg.Fetch, min: 4, max: 18, on: onBroker, serve: call.fetch, raw: true},
	{key: kmsg.ListOffsets, min: 1, max: 11, on: onBroker, serve: call.listOffsets},
	{key: kmsg.Metadata, min: 0, max: 13, on: onBroker, serve: call.metadata, wait: true},
	{key: kmsg.LeaderAndISR, refused: removed},
	{key: kmsg.StopReplica, refused: removed},
	{key: kmsg.UpdateMetadata, refused: removed},
	{key: kmsg.ControlledShutdown, refused: removed},
	{key: kmsg.OffsetCommit, min: 2, max: 10, on: onBroker, serve: call.offsetCommit},
	{key: kmsg.OffsetFetch, min: 1, max: 10, on: onBroker, serve: call.offsetFetch},
	{key: kmsg.FindCoordinator, min: 0, max: 6, on: onBroker, serve: call.findCoordinator, wait: true},
	{key: kmsg.JoinGroup, min: 0, max: 9, on: onBroker, serve: call.joinGroup, keeps: true},
	{key: kmsg.Heartbeat, min: 0, max: 4, on: onBroker, serve: call.heartbeat},
	{key: kmsg.LeaveGroup, min: 0, max: 5, on: onBroker, serve: call.leaveGroup},
	{key: kmsg.SyncGroup, min: 0, max: 5, on: onBroker, serve: call.syncGroup, keeps: true},
	{key: kmsg.DescribeGroups, min: 0, max: 6, on: onBroker, serve: call.describeGroups},
	{key: kmsg.ListGroups, min: 0, max: 5, on: onBroker, serve: call.listGroups},
	{key: kmsg.SASLHandshake, min: 0, max: 1, refused: noSecurity},
	{key: kmsg.ApiVersions, min: 0, max: 5, on: onBroker | onController, serve: call.apiVersions},
	{key: kmsg.CreateTopics, min: 2, max: 7, on: onBroker | onController, serve: call.createTopics, wait: true},
	{key: kmsg.DeleteTopics, min: 1, max: 6, on: onBroker | onController, serve: call.deleteTopics, wait: true},
	{key: kmsg.DeleteRecords, min: 0, max: 2, on: onBroker, serve: call.deleteRecords, wait: true},
	{key: kmsg.InitProducerID, min: 0, max: 5, on: onBroker, serve: call.initProducerID, wait: true},
	{key: kmsg.OffsetForLeaderEpoch, min: 2, max: 4, on: onBroker, serve: call.offsetForLeaderEpoch},
	{key: kmsg.AddPartitionsToTxn, min: 0, max: 5, refused: noTxns},
	{key: kmsg.AddOffsetsToTxn, min: 0, max: 4, refused: noTxns},
	{key: kmsg.EndTxn, min: 0, max: 5, refused: noTxns},
	{key: kmsg.WriteTxnMarkers, min: 1, max: 2, refused: noTxns},
	{key: kmsg.TxnOffsetCommit, min: 0, max: 6, refused: noTxns},
	{key: kmsg.DescribeACLs, min: 1, max: 3, refused: noSecurity},
	{key: kmsg.CreateACLs, min: 1, max: 3, refused: noSecurity},
	{key: kmsg.DeleteACLs, min: 1, max: 3, refused: noSecurity},
	{key: kmsg.DescribeConfigs, min: 1, max: 4, on: onBroker | onController, serve: call.describeConfigs},
	{key: kmsg.AlterConfigs, min: 0, max: 2, on: onBroker | onController, serve: call.alterConfigs, wait: true},
	{key: kmsg.AlterReplicaLogDirs, min: 1, max: 2, refused: noAdmin},
	{key: kmsg.DescribeLogDirs, min: 1, max: 5, refused: noAdmin},
	{key: kmsg.SASLAuthenticate, min: 0, max: 2, refused: noSecurity},
	{key: kmsg.CreatePartitions, min: 0, max: 3, on: onBroker | onController, serve: call.createPartitions, wait: true},
	{key: kmsg.CreateDelegationToken, min: 1, max: 3, refused: noSecurity},
	{key: kmsg.RenewDelegationToken, min: 1, max: 2, refused: noSecurity},
	{key: kmsg.ExpireDelegationToken, min: 1, max: 2, refused: noSecurity},
	{key: kmsg.DescribeDelegationToken, min: 1, max: 3, refused: noSecurity},
	{key: kmsg.DeleteGroups, min: 0, max: 3, on: onBroker, serve: call.deleteGroups},
	{key: kmsg.ElectLeaders, min: 0, max: 2, refused: noAdmin},
	{key: kmsg.IncrementalAlterConfigs, min: 0, max: 1, on: onBroker | onController, serve: call.incrementalAlterConfigs, wait: true},
	{key: kmsg.AlterPartitionAssignments, min: 0, max: 1, refused: noCluster},
	{key: kmsg.ListPartitionReassignments, min: 0, max: 0, refused: noCluster},
	{key: kmsg.OffsetDelete, min: 0, max: 0, on: onBroker, serve: call.offsetDelete},
	{key: kmsg.DescribeClientQuotas, min: 0, max: 1, refused: noSecurity},
	{key: kmsg.AlterClientQuotas, min: 0, max: 1, refused: noSecurity},
	{key: kmsg.DescribeUserSCRAMCredentials, min: 0, max: 0, refused: noSecurity},
	{key: kmsg.AlterUserSCRAMCredentials, min: 0, max: 0, refused: noSecurity},
	{key: kmsg.Vote, min: 0, max: 2, refused: noRaft},
	{key: kmsg.BeginQuorumEpoch, min: 0, max: 1, refused: noRaft},
	{key: kmsg.EndQuorumEpoch, min: 0, max: 1, refused: noRaft},
	{key: kmsg.DescribeQuorum, min: 0, max: 2, refused: noAdmin},
	{key: kmsg.AlterPartition, min: 2, max: 3, refused: inProcess},
	{key: kmsg.UpdateFeatures, min: 0, max: 2, refused: noAdmin},
	{key: kmsg.Envelope, min: 0, max: 0, refused: inProcess},
	{key: kmsg.FetchSnapshot, min: 0, max: 1, refused: inProcess},
	{key: kmsg.DescribeCluster, min: 0, max: 2, on: onBroker | onController, serve: call.describeCluster},
	{key: kmsg.DescribeProducers, min: 0, max: 0, refused: noAdmin},
	{key: kmsg.BrokerRegistration, min: 0, max: 4, refused: inProcess},
	{key: kmsg.BrokerHeartbeat, min: 0, max: 2, refused: inProcess},
	{key: kmsg.UnregisterBroker, min: 0, max: 0, refused: noAdmin},
	{key: kmsg.DescribeTransactions, min: 0, max: 0, refused: noTxns},
	{key: kmsg.ListTransactions, min: 0, max: 2, refused: noTxns},
	{key: kmsg.AllocateProducerIDs, min: 0, max: 0, refused: inProcess},
	{key: kmsg.ConsumerGroupHeartbeat, min: 0, max: 1, refused: noGroups},
	{key: kmsg.ConsumerGroupDescribe, min: 0, max: 1, refused: noGroups},
	{key: kmsg.ControllerRegistration, min: 0, max: 0, refused: inProcess},
	{key: kmsg.GetTelemetrySubscriptions, min: 0, max: 0, refused: noPlugin},
	{key: kmsg.PushTelemetry, min: 0, max: 0, refused: noPlugin},
	{key: kmsg.AssignReplicasToDirs, min: 0, max: 0, refused: inProcess},
	{key: kmsg.ListConfigResources, min: 0, max: 1, refused: noAdmin},
	{key: kmsg.DescribeTopicPartitions, min: 0, max: 0, on: onBroker, serve: call.describeTopicPartitions},
	{key: kmsg.ShareGroupHeartbeat, min: 1, max: 1, refused: noShare},
	{key: kmsg.ShareGroupDescribe, min: 1, max: 1, refused: noShare},
	{key: kmsg.ShareFetch, min: 1, max: 2, refused: noShare},
	{key: kmsg.ShareAcknowledge, min: 1, max: 2, refused: noShare},
	{key: kmsg.AddRaftVoter, min: 0, max: 1, refused: noCluster},
	{key: kmsg.RemoveRaftVoter, min: 0, max: 0, refused: noCluster},
	{key: kmsg.UpdateRaftVoter, min: 0, max: 0, refused: noCluster},
	{key: kmsg.InitializeShareGroupState, min: 0, max: 0, refused: noShare},
	{key: kmsg.ReadShareGroupState, min: 0, max: 0, refused: noShare},
	{key: kmsg.WriteShareGroupState, min: 0, max: 1, refused: noShare},
	{key: kmsg.DeleteShareGroupState, min: 0, max: 0, refused: noShare},
	{key: kmsg.ReadShareGroupStateSummary, min: 0, max: 1, refused: noShare},
	{key: kmsg.StreamsGroupHeartbeat, min: 0, max: 1, refused: noStreams},
	{key: kmsg.StreamsGroupDescribe, min: 0, max: 1, refused: noStreams},
	{key: kmsg.DescribeShareGroupOffsets, min: 0, max: 1, refused: noShare},
	{key: kmsg.AlterShareGroupOffsets, min: 0, max: 0, refused: noShare},
	{key: kmsg.DeleteShareGroupOffsets, min: 0, max: 0, refused: noShare},
	{key: kmsg.StreamsGroupTopologyDescriptionUpdate, min: 0, max: 0, refused: noStreams},
	{key: kmsg.UnregisterController, min: 0, max: 0, refused: noCluster},
}
