// Which coder and reviewer pairs meet issues, and how often?
MATCH (reviewer:Agent)-[r:REVIEWED {found_issues: true}]->(t:Task)
      <-[impl:IMPLEMENTED]-(coder:Agent)
RETURN coder.model, reviewer.model, count(*) as issue_count
ORDER BY issue_count DESC
