"""RuleService: the rules of online evaluations."""

from collections.abc import Awaitable, Callable, Iterable

from google.protobuf.field_mask_pb2 import FieldMask

from lavant.server.auth.principal import Scope
from lavant.server.evaluation.ledger import Window
from lavant.server.evaluation.rules import Rules
from lavant.server.evaluation.webhook_addresses import restore, without_hidden
from lavant.server.model import RunKey
from lavant.server.rpc.bounds import checked
from lavant.server.rpc.dispatch import Service, unary
from lavant.server.rpc.rule_validation import check_rule, setting_paths
from lavant.server.rpc.validation import DEFAULT_PAGE_SIZE
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.tokens import Listing, PageTokens
from lavant.v1 import rule_service_pb2 as pb
from lavant.v1.rule_pb2 import AlertStatus, Rule

StatusesOf = Callable[[str, Rule], Awaitable[Iterable[AlertStatus]]]  # of a tenant's rule's alerts


class RuleService:
    """The RPCs of RuleService; the contract describes each."""

    def __init__(
        self, rules: Rules, page_tokens: PageTokens, may_post: Callable[[str], bool], statuses_of: StatusesOf
    ) -> None:
        self._rules = rules
        self._page_tokens = page_tokens
        self._may_post = may_post
        self._statuses_of = statuses_of

    def service(self) -> Service:
        """Return the methods for a gRPC server, with the scopes that they need."""
        return Service(
            pb.DESCRIPTOR.services_by_name["RuleService"].full_name,
            {
                "CreateRule": unary(pb.CreateRuleRequest, self.create_rule, Scope.RULES_WRITE, audited=True),
                "GetRule": unary(pb.GetRuleRequest, self.get_rule, Scope.RULES_READ, Scope.SAMPLES_WORK),
                "ListRules": unary(pb.ListRulesRequest, self.list_rules, Scope.RULES_READ),
                "UpdateRule": unary(pb.UpdateRuleRequest, self.update_rule, Scope.RULES_WRITE, audited=True),
                "DeleteRule": unary(pb.DeleteRuleRequest, self.delete_rule, Scope.RULES_WRITE, audited=True),
                "BackfillRule": unary(pb.BackfillRuleRequest, self.backfill_rule, Scope.RULES_WRITE, audited=True),
            },
        )

    @checked(pb.CreateRuleRequest)
    async def create_rule(self, request: pb.CreateRuleRequest, call: Caller) -> pb.CreateRuleResponse:
        """Create a rule, or return the stored one if they are equal."""
        made = await self._rules.create(call.tenant, check_rule(request.rule, self._may_post))
        return pb.CreateRuleResponse(rule=await self._with_statuses(made, call))

    @checked(pb.GetRuleRequest)
    async def get_rule(self, request: pb.GetRuleRequest, call: Caller) -> pb.GetRuleResponse:
        """Return a rule with its progress and the status of its alerts."""
        rule = await self._rules.get(_key(request.rule_id, call))
        return pb.GetRuleResponse(rule=await self._with_statuses(rule, call))

    @checked(pb.ListRulesRequest)
    async def list_rules(self, request: pb.ListRulesRequest, call: Caller) -> pb.ListRulesResponse:
        """Return a page of a tenant's rules, the newest first."""
        before = self._page_tokens.read(Listing.RULES, call.tenant, request.page_token, "page_token")
        page = await self._rules.list(call.tenant, request.page_size or DEFAULT_PAGE_SIZE, before)
        token = self._page_tokens.issue(Listing.RULES, call.tenant, page.next_position)
        rules = [await self._with_statuses(rule, call) for rule in page.rules]
        return pb.ListRulesResponse(rules=rules, next_page_token=token)

    @checked(pb.UpdateRuleRequest)
    async def update_rule(self, request: pb.UpdateRuleRequest, call: Caller) -> pb.UpdateRuleResponse:
        """Change the settings of a rule that the mask names."""
        wanted, paths = request.rule, setting_paths(request)
        check_rule(without_hidden(wanted), self._may_post)

        def change(settings: Rule) -> Rule:
            addresses = {alert.name: alert.webhook_url for alert in settings.alerts}
            # Also clears what `wanted` does not set: MergeMessage leaves alone what is within an absent filter.
            for path in paths:
                parent, _, name = path.rpartition(".")
                (settings.filter if parent else settings).ClearField(name)  # type: ignore[arg-type]
            FieldMask(paths=paths).MergeMessage(wanted, settings, replace_repeated_field=True)
            restore(settings.alerts, addresses)
            return check_rule(settings, self._may_post)

        rule = await self._rules.update(RunKey(call.tenant, wanted.rule_id), wanted.revision, change)
        return pb.UpdateRuleResponse(rule=await self._with_statuses(rule, call))

    @checked(pb.DeleteRuleRequest)
    async def delete_rule(self, request: pb.DeleteRuleRequest, call: Caller) -> pb.DeleteRuleResponse:
        """Delete a rule; its scores stay."""
        await self._rules.delete(_key(request.rule_id, call))
        return pb.DeleteRuleResponse()

    @checked(pb.BackfillRuleRequest)
    async def backfill_rule(self, request: pb.BackfillRuleRequest, call: Caller) -> pb.BackfillRuleResponse:
        """Start a pass of a rule over earlier runs."""
        key = _key(request.rule_id, call)
        after = request.created_after.ToNanoseconds() if request.HasField("created_after") else None
        before = request.created_before.ToNanoseconds() if request.HasField("created_before") else None
        return pb.BackfillRuleResponse(rule=await self._rules.backfill(key, Window(after, before), request.mode))

    async def _with_statuses(self, rule: Rule, call: Caller) -> Rule:
        rule.alert_statuses.extend(await self._statuses_of(call.tenant, rule))
        return rule


def _key(rule_id: str, call: Caller) -> RunKey:
    return RunKey(call.tenant, rule_id)
