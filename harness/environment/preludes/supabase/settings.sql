-- Settings of the database; a clone gets them too.
ALTER DATABASE {database} SET search_path = "$user", public, extensions;
ALTER DATABASE {database} SET "app.settings.jwt_secret" = 'super-secret-jwt-token-with-at-least-32-characters-long';
ALTER DATABASE {database} SET "app.settings.jwt_exp" = '3600';
